"""The products of the model: docs/configuration.md, conf/ramd.conf and conf/ramctrl.conf.

`python -m ramd.config.reference --write` makes them anew, `--check` fails if one is out of date;
run in the project's directory. A test does the same.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

from ramd.config.client import CLIENT_KEYS, DEFAULTS
from ramd.config.explain import expected, written
from ramd.config.keys import Availability, Key, Topic
from ramd.config.lines import quoted
from ramd.config.model import TOPICS, fields
from ramd.config.names import ALIASES, ENVIRONMENT_KEYS
from ramd.config.nodes import NodeEntry
from ramd.config.topics.failover import PROFILES

SAMPLE_COLUMNS = 96
ACTIVE = {
    "node_id": "1",
    "cluster_name": "ram_cluster",
    "postgresql_data_dir": "/var/lib/ramd/data",
}
"""Keys that the sample file sets; every other one stands there as a comment."""

INTRODUCTION = """\
# Configuration

<!-- Made by `python -m ramd.config.reference --write` from src/ramd/config/topics; do not edit. -->

`ramd --config FILE` reads one flat file of lines `key = value`. Empty lines and lines that begin
with `#` or `;` are skipped; ` #` and ` ;` begin a comment after a value. A value may stand in
single or double quotes; inside double quotes `\\"` and `\\\\` stand for the character itself.
Switches take true/false, on/off, yes/no or 1/0. Paths are absolute. An unknown key or a key set
twice is an error.

`ramd --config FILE --validate` prints every fault at once, as `file:line: key: what is wrong; what
would be right`, and exits with 2; a good file prints "configuration is valid", its warnings, and
exits with 0. Nothing is changed by it.

In the tables, *reload* marks a key whose new value a running daemon takes on SIGHUP, without a
restart; *cluster-wide* marks a key of which only the value at the first forming counts, because the
group keeps it from then on.
"""


def sample_conf() -> str:
    """conf/ramd.conf: loads as it is; every key stands in it once."""
    lines = [
        "# Sample configuration of ramd. Every key is here; a commented one shows its default, or",
        "# an example where there is none.",
        "# What each means, its bounds and dangers: docs/configuration.md. Check a file with",
        "#     ramd --config FILE --validate",
    ]
    for topic in TOPICS:
        lines += ["", f"# --- {title(topic)} ---"]
        for name, field, key in fields(topic):
            lines += ["", *_sample_key(name, field, key)]
    lines += ["", f"# --- {title(NodeEntry)}: the same on every host, N from 1 to 9 ---", ""]
    lines += _comment("Leave the list out to make a cluster on one host with `cluster create`.")
    lines += [f"#node_{number}_hostname = db{number}.example.org" for number in (1, 2, 3)]
    defaults = {name: field.default for name, field, _ in fields(NodeEntry)}
    lines += [f"#node_1_{name} = {defaults[name]}" for name in ("port", "raft_port", "http_port")]
    lines.append("#node_1_role = primary")
    return "\n".join(lines) + "\n"


def _sample_key(name: str, field: FieldInfo, key: Key) -> Iterator[str]:
    mark = "" if key.availability is Availability.AVAILABLE else f" ({key.availability.value})"
    unit = f" In {key.unit}." if key.unit else ""
    yield from _comment(f"{key.doc}{unit}{mark}")
    if name in ACTIVE:
        yield f"{name} = {ACTIVE[name]}"
    else:
        yield f"#{name} = {quoted(key.example or _concrete(field))}".rstrip()


def _concrete(field: FieldInfo) -> str:
    return "" if isinstance(field.default, Path) else written(field.default)


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, SAMPLE_COLUMNS)]


def sample_client_conf() -> str:
    """conf/ramctrl.conf: loads as it is; every key stands in it once."""
    lines = [
        "# Sample configuration of ramctrl: what the command line need not say. A commented key",
        "# shows its default.",
    ]
    for name, key in CLIENT_KEYS.items():
        lines += ["", *_comment(key.doc)]
        lines.append(f"#{name} = {written(getattr(DEFAULTS, name))}".rstrip())
    return "\n".join(lines) + "\n"


def reference_page() -> str:
    """docs/configuration.md."""
    tables = [f"## {title(topic)}\n\n{_table(topic)}" for topic in TOPICS]
    rest = [_node_list(), _profiles(), _aliases(), _environment(), _client()]
    return "\n".join([INTRODUCTION, *tables, *rest])


def title(topic: type[Topic]) -> str:
    """The heading of a group of keys."""
    assert topic.__doc__
    return topic.__doc__.splitlines()[0].removesuffix(".")


HEAD = "| Key | Default | Value | Meaning |\n|---|---|---|---|\n"


def _table(topic: type[Topic]) -> str:
    return HEAD + "".join(_row(name, field, key) for name, field, key in fields(topic))


def _row(name: str, field: FieldInfo, key: Key) -> str:
    meaning = [key.doc]
    if key.availability is not Availability.AVAILABLE:
        meaning.append(f"**{_sentence(key.availability.value)}**")
    if key.danger:
        meaning.append(f"Danger: {key.danger}")
    if key.reload:
        meaning.append("*reload*")
    if key.cluster_wide:
        meaning.append("*cluster-wide*")
    value = expected(field, key)
    cells = (f"`{name}`", _default(field, key), value, " ".join(meaning))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _default(field: FieldInfo, key: Key) -> str:
    if key.required:
        return "required"
    if key.default_text:
        return key.default_text.replace("<", "‹").replace(">", "›")
    text = written(field.default)
    return f"`{text}`" if text else "none"


def _node_list() -> str:
    rows = "".join(
        _row(f"node_N_{name}", field, key)
        for name, field, key in fields(NodeEntry)
        if name != "node_id"
    )
    return (
        f"## {title(NodeEntry)}\n\n"
        "N is 1 to 9. With a list the daemons form that cluster, or find themselves in it; once\n"
        "it is formed the list is only compared with it. Without a list a daemon waits for\n"
        "`cluster create`. What is said of this node here and by its own keys must agree.\n\n"
        f"{HEAD}{rows}"
    )


def _profiles() -> str:
    rows = "".join(
        f"| `{name}` | {one.raft_heartbeat_ms} | {one.raft_election_timeout_ms} | "
        f"{one.primary_lease_ttl_ms} |\n"
        for name, one in PROFILES.items()
    )
    return (
        "## Timing profiles\n\n"
        "| `timing_profile` | `raft_heartbeat_ms` | `raft_election_timeout_ms` | "
        f"`primary_lease_ttl_ms` |\n|---|---|---|---|\n{rows}"
    )


def _aliases() -> str:
    rows = "".join(f"| `{old}` | `{new}` |\n" for old, new in ALIASES.items())
    return f"## Old names\n\nAccepted with a warning.\n\n| Old | Now |\n|---|---|\n{rows}"


def _environment() -> str:
    rows = "".join(f"| `{name}` | `{key}` |\n" for name, key in ENVIRONMENT_KEYS.items())
    return (
        "## Environment\n\nA variable that is set and not empty wins over the file.\n\n"
        f"| Variable | Key |\n|---|---|\n{rows}"
    )


def _client() -> str:
    rows = ""
    for name, key in CLIENT_KEYS.items():
        text = written(getattr(DEFAULTS, name))
        default = f"`{text}`" if text else "none"
        rows += f"| `{name}` | {default} | {key.right} | {key.doc} |\n"
    return f"## ramctrl.conf\n\nThe same syntax, for `ramctrl --config FILE`.\n\n{HEAD}{rows}"


def products() -> dict[str, str]:
    """Every generated file, by its path in the project."""
    return {
        "conf/ramd.conf": sample_conf(),
        "conf/ramctrl.conf": sample_client_conf(),
        "docs/configuration.md": reference_page(),
    }


def main(arguments: list[str]) -> int:
    """`--write` or `--check`, in the project's directory."""
    if arguments not in (["--write"], ["--check"]):
        sys.stderr.write("usage: python -m ramd.config.reference --write | --check\n")
        return 2
    stale = [name for name, text in products().items() if _present(name) != text]
    for name in stale:
        if arguments == ["--write"]:
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text(products()[name], encoding="utf-8")
        sys.stderr.write(f"{name}: {'written' if arguments == ['--write'] else 'out of date'}\n")
    return 1 if stale and arguments == ["--check"] else 0


def _present(name: str) -> str | None:
    path = Path(name)
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
