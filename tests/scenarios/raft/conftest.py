"""`pytest tests/scenarios/raft --rewrite` writes what the stories' commands print now."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that refreshes goldens; read the diff before you commit it."""
    parser.addoption("--rewrite", action="store_true", help="write the stories anew")
