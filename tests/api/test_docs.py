"""docs/rest.md and docs/ramctrl.md say what the code does."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from ramctrl.__main__ import app
from ramd.api.health import CHECKS
from ramd.domain.errors import CODES
from tests.api.harness import Api, serving
from tests.api.stories import healthy

DOCS = Path(__file__).parents[2] / "docs"
REST = (DOCS / "rest.md").read_text(encoding="utf-8")
RAMCTRL = (DOCS / "ramctrl.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with serving() as served:
        yield served


def test_every_error_code_is_in_the_table() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+|–) \| (\d+) \| (.+?) \|$", REST, re.MULTILINE)
    documented = {code: (status, int(exit_code)) for code, status, exit_code, _ in rows}
    defined = {
        name: ("–" if name == "unreachable" else str(code.http_status), code.exit_code)
        for name, code in CODES.items()
    }
    assert documented == defined


def test_every_exit_code_is_explained() -> None:
    explained = {int(code) for code in re.findall(r"^\| (\d+) \| ", RAMCTRL, re.MULTILINE)}
    assert explained == {0} | {code.exit_code for code in CODES.values()}


def test_every_endpoint_is_in_the_tables(api: Api) -> None:
    paths = api.get("/openapi.json").body["paths"]
    for path, operations in paths.items():
        for method in operations:
            assert f"`{method.upper()} {path}`" in REST


def test_every_field_is_named(api: Api) -> None:
    api.service.story = healthy()
    answers = [api.get(path).data for path in ("/health", "/cluster/health", "/cluster/status")]
    answers += [api.get("/nodes/1").data, api.post("/cluster/create", {"num_nodes": 3}).data]
    answers += [api.get("/quorum/status").data, api.post("/quorum/recover").data]
    answers += [api.post("/cluster/destroy").data, api.post("/cluster/failover").data]
    sync = api.get("/sync-standbys/status").data
    answers += [sync, *sync["nodes"]]
    answers += [api.post("/cluster/add-node").data]
    answers += [api.post("/cluster/remove-node", {"node_id": 3}).data]
    answers += [api.post("/cluster/add-voter", {"node_id": 3}).data]
    answers += [api.post("/nodes/3/reinit").data]
    named = set(re.findall(r"`([a-z_]+)`", REST))
    assert {name for answer in answers for name in answer} <= named


def test_every_health_check_is_in_the_table() -> None:
    rows = re.findall(r"^\| ((?:`/[a-z-]*` ?)+)\|", REST, re.MULTILINE)
    assert set(re.findall(r"`(/[a-z-]*)`", " ".join(rows))) == set(CHECKS)


def test_every_command_and_option_is_named() -> None:
    root = typer.main.get_command(app)
    text = " ".join(RAMCTRL.split())
    for words, command in [("", root), *commands_of(root)]:
        if not words.startswith("node "):  # said once for all: `nodes …`
            assert f"`{words}" in text or f"`ramctrl {words}" in text, words
        for option in options_of(command):
            assert re.search(rf"[` ]{option}[` ]", text), f"{words} {option}"


def commands_of(command: object, words: str = "") -> Iterator[tuple[str, object]]:
    """Every command below this one, hidden ones too, with the words that call it."""
    if not isinstance(command, typer.core.TyperGroup):
        yield words, command
        return
    for name, below in command.commands.items():
        yield from commands_of(below, f"{words} {name}".strip())


def options_of(command: object) -> list[str]:
    """The long spellings, without typer's own."""
    own = {"--help", "--install-completion", "--show-completion"}
    params = getattr(command, "params", [])
    spelled = {name for param in params for name in param.opts if name.startswith("--")}
    return sorted(spelled - own)
