"""A file and the environment → `Config`, or every fault at once.

    lines → names (aliases, node list, unknown) → values (types, bounds) → checks across keys → host

Lives here: that pipeline. The rules themselves are in `topics` and `checks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from ramd.config.checks import CHECKS, HOST_CHECKS
from ramd.config.explain import complaint, expected
from ramd.config.faults import ENVIRONMENT, Fault, InvalidConfigError, Origin, nearest, shown
from ramd.config.keys import Key
from ramd.config.lines import Setting, parse, read_text
from ramd.config.model import KEYS, Config, key_of
from ramd.config.names import ALIASES, ENVIRONMENT_KEYS, REFUSED_FAMILY
from ramd.config.nodes import NODE_FIELDS, NODE_ID_MAX, NODE_KEY, NodeEntry, node_key
from ramd.config.problem import Problem
from ramd.config.secret_file import SecretFileError, read_secret
from ramd.config.topics.postgresql import UNSET_DATA_DIR
from ramd.config.warn import warnings_of

NOTHING: Mapping[str, str] = MappingProxyType({})
COMMAND_LINE = "command line"


@dataclass(slots=True, kw_only=True)
class Draft:
    """What has been understood so far. `settings` by the key's present name."""

    source: str
    settings: dict[str, Setting] = field(default_factory=dict)
    nodes: dict[int, dict[str, Setting]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bad: set[str] = field(default_factory=set)
    """Keys with a fault, by present name; checks that read them are skipped."""

    def refuse(self, origin: Origin, key: str, wrong: str, right: str = "") -> None:
        self.faults.append(Fault(origin=origin, key=key, wrong=wrong, right=right))
        self.bad.add("nodes" if NODE_KEY.match(key) else ALIASES.get(key, key))

    def origin(self, key: str) -> Origin:
        """Where `key` was set; a key of the node list left out: where its node begins; else the
        file."""
        nowhere = Origin(source=self.source)
        found = NODE_KEY.match(key)
        if found is None:
            return self.settings[key].origin if key in self.settings else nowhere
        entry = self.nodes.get(int(found.group(1)), {})
        setting = entry.get(found.group(2)) or next(iter(entry.values()), None)
        return setting.origin if setting else nowhere


def load(path: Path, env: Mapping[str, str], options: Mapping[str, str] = NOTHING) -> Config:
    """The configuration in `path` under `env`, checked against this host as well.

    `options` are values of keys from the command line, which win over both.
    Raises InvalidConfigError with every fault found. Nothing is written anywhere.
    """
    return load_text(read_text(path), env, options, source=str(path), path=path)


def load_text(
    text: str,
    env: Mapping[str, str],
    options: Mapping[str, str] = NOTHING,
    *,
    source: str = "ramd.conf",
    path: Path | None = None,
) -> Config:
    """As `load`, from text; `path` is asked for its mode if it may hold secrets."""
    lines = parse(text, source)
    draft = Draft(source=source, faults=list(lines.faults))
    draft.bad.update(fault.key for fault in lines.faults if fault.key)
    for setting in lines.settings.values():
        _place(draft, setting)
    _override(draft, env, options)
    config = _validate(draft)
    config = _with_token(draft, config)
    for check in (*CHECKS, *HOST_CHECKS):
        if not draft.bad.intersection(check.reads):
            for problem in check.run(config):
                _refuse(draft, problem, check.reads)
    if draft.faults:
        raise InvalidConfigError(draft.faults)
    warnings = (*draft.notes, *warnings_of(config, path))
    return config.model_copy(update={"warnings": warnings})


# --- names ------------------------------------------------------------------------------------


def _place(draft: Draft, setting: Setting) -> None:
    """Put one setting under its present name, or say why not."""
    key = setting.key
    if key in KEYS:
        _keep(draft, key, setting)
    elif key in ALIASES:
        draft.notes.append(f"{setting.origin}: {key} is an old name; write {ALIASES[key]} instead")
        _keep(draft, ALIASES[key], setting)
    elif NODE_KEY.match(key):
        _place_node(draft, setting)
    elif key.startswith(REFUSED_FAMILY):
        if setting.value:
            draft.refuse(setting.origin, key, *LDAP_REFUSED)
    else:
        _unknown(draft, setting)


LDAP_REFUSED = (
    "LDAP is not available in this version",
    "remove it: the daemon does not start as if it protected anything",
)


def _keep(draft: Draft, name: str, setting: Setting) -> None:
    other = draft.settings.get(name)
    if other is None:
        draft.settings[name] = setting
    elif other.value != setting.value:
        draft.refuse(
            setting.origin,
            setting.key,
            f"means the same as {other.key} in line {other.origin.line}, with another value",
            f"keep {name} alone",
        )


def _unknown(draft: Draft, setting: Setting) -> None:
    lower = setting.key.lower()
    known = [*KEYS, *ALIASES, *(node_key(n, f) for n in range(1, 10) for f in NODE_FIELDS)]
    near = lower if lower in known else nearest(lower, known)
    right = f"did you mean {near}?" if near else "docs/configuration.md lists every key"
    draft.refuse(setting.origin, setting.key, "is not a key of RAMD", right)


def _place_node(draft: Draft, setting: Setting) -> None:
    found = NODE_KEY.match(setting.key)
    assert found
    number, name = int(found.group(1)), found.group(2)
    if name not in NODE_FIELDS:
        near = nearest(name, NODE_FIELDS) or "hostname"
        draft.refuse(
            setting.origin,
            setting.key,
            "is not a key of RAMD",
            f"did you mean {node_key(number, near)}?",
        )
    elif not 1 <= number <= NODE_ID_MAX or found.group(1) != str(number):
        draft.refuse(
            setting.origin, setting.key, f"{number} is not a node", f"N is 1 to {NODE_ID_MAX}"
        )
    else:
        draft.nodes.setdefault(number, {})[name] = setting


def _override(draft: Draft, env: Mapping[str, str], options: Mapping[str, str]) -> None:
    """Variables of the environment win over the file, options over both."""
    for variable, key in ENVIRONMENT_KEYS.items():
        if value := env.get(variable, ""):
            origin = Origin(source=f"{ENVIRONMENT} {variable}")
            draft.settings[key] = Setting(key=key, value=value, origin=origin)
    for key, value in options.items():
        assert key in KEYS, f"an option for no key: {key}"
        draft.settings[key] = Setting(key=key, value=value, origin=Origin(source=COMMAND_LINE))


# --- values -----------------------------------------------------------------------------------


def _validate(draft: Draft) -> Config:
    """A `Config` of every good value; faulty ones are noted and left at their default."""
    values: dict[str, Any] = {key: setting.value for key, setting in draft.settings.items()}
    values["nodes"] = _entries(draft)
    values["given"] = frozenset(draft.settings)
    if "postgresql_data_dir" not in values and "postgresql_data_dir" not in draft.bad:
        draft.refuse(
            Origin(source=draft.source),
            "postgresql_data_dir",
            "is required",
            "name the data directory of this node's server",
        )
    values.setdefault("postgresql_data_dir", UNSET_DATA_DIR)
    for _ in range(2):
        try:
            return Config(**values)
        except ValidationError as error:
            _note(draft, error)
            for key in draft.bad:
                values.pop(key, None)
            values.setdefault("postgresql_data_dir", UNSET_DATA_DIR)
    raise AssertionError("a default value is not valid")


def _note(draft: Draft, error: ValidationError) -> None:
    for item in error.errors(include_url=False):
        name = str(item["loc"][0])
        setting = draft.settings.get(name)
        if setting is None:
            continue  # derived from a faulty value, which has its own fault
        described = key_of(KEYS[name])
        wrong = complaint(item["type"], item["msg"], setting.value, described)
        right = expected(KEYS[name], described)
        draft.refuse(setting.origin, setting.key, wrong, right)


def _entries(draft: Draft) -> tuple[dict[str, Any], ...]:
    """The node list without its faulty values, which are noted."""
    entries = []
    for number in sorted(draft.nodes):
        given = {name: setting.value for name, setting in draft.nodes[number].items()}
        entry: dict[str, Any] = {**given, "node_id": number}
        try:
            NodeEntry(**entry)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                entry.pop(_note_entry(draft, number, given, item), None)
        if "hostname" in entry:
            entries.append(entry)
    return tuple(entries)


def _note_entry(draft: Draft, number: int, given: Mapping[str, str], item: Any) -> str:
    """Note one fault of one entry; returns the field."""
    name = str(item["loc"][0])
    described: Key = key_of(NodeEntry.model_fields[name])
    key = node_key(number, name)
    if item["type"] == "missing":
        first = next(iter(draft.nodes[number].values()))
        wrong = f"is missing beside {shown(first.key)}"
        draft.refuse(first.origin, key, wrong, f"add {key}")
    else:
        wrong = complaint(item["type"], item["msg"], given[name], described)
        right = expected(NodeEntry.model_fields[name], described)
        draft.refuse(draft.origin(key), key, wrong, right)
    return name


def _with_token(draft: Draft, config: Config) -> Config:
    """The token from its file, as the effective `http_auth_token`."""
    path = config.http_auth_token_file
    if path is None or draft.bad.intersection({"http_auth_token_file", "http_auth_token"}):
        return config
    if "http_auth_token" in draft.settings:
        draft.refuse(
            draft.origin("http_auth_token_file"),
            "http_auth_token_file",
            "http_auth_token is set as well",
            "keep one of the two",
        )
        return config
    try:
        token = read_secret(path, what="token", least=8, most=512)
    except SecretFileError as error:
        draft.refuse(
            draft.origin("http_auth_token_file"), "http_auth_token_file", error.wrong, error.right
        )
        return config
    return config.model_copy(update={"http_auth_token": token})


def _refuse(draft: Draft, problem: Problem, reads: Sequence[str]) -> None:
    """Note what a check found: at the key's own line, else at that of another key it judged by."""
    key = problem.key
    setting = draft.settings.get(key)
    nowhere = Origin(source=draft.source)
    origins = (draft.origin(name) for name in (key, *reads))
    origin = next((one for one in origins if one != nowhere), nowhere)
    draft.refuse(origin, setting.key if setting else key, problem.wrong, problem.right)
