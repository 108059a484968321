"""Marks tests by where they lie, and sets hypothesis for a machine that is shared."""

from pathlib import Path

import pytest
from hypothesis import settings

HERE = Path(__file__).parent
MARKED_DIRS = ("postgres", "extension", "e2e")

# A slow moment of the machine is no failure; a failing example prints how to run it again.
settings.register_profile("shared", deadline=None, print_blob=True)
settings.load_profile("shared")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Here alone: two folders that each declare it cannot be collected in one run."""
    parser.addoption("--rewrite", action="store_true", help="write goldens anew; read the diff")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below these folders carries the marker of its folder."""
    for item in items:
        if item.path.is_relative_to(HERE):
            folder = item.path.relative_to(HERE).parts[0]
            if folder in MARKED_DIRS:
                item.add_marker(folder)
