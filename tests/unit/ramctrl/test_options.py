"""Global options stand before or after the command, and mean the same."""

import pytest

from ramctrl.options import hoist


@pytest.mark.parametrize(
    ("given", "hoisted"),
    [
        ([], []),
        (["cluster", "status"], ["cluster", "status"]),
        (["cluster", "status", "--port", "1"], ["--port", "1", "cluster", "status"]),
        (["cluster", "--port=1", "status", "-j"], ["--port=1", "-j", "cluster", "status"]),
        (["--host", "h", "nodes", "list", "-t", "3"], ["--host", "h", "-t", "3", "nodes", "list"]),
        (
            ["cluster", "create", "--primary-port", "1", "--port", "2"],
            ["--port", "2", "cluster", "create", "--primary-port", "1"],
        ),
        (["nodes", "show", "--", "--port"], ["nodes", "show", "--", "--port"]),
        (["cluster", "status", "--port"], ["--port", "cluster", "status"]),
        (["cluster", "status", "--portal"], ["cluster", "status", "--portal"]),
    ],
)
def test_hoist(given: list[str], hoisted: list[str]) -> None:
    assert hoist(given) == hoisted
