"""The operator's own libraries and paths stay; ours is one more, once, and goes again."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramd.domain.fence import Preload
from ramd.postgres.preload import preload_settings, with_lists

OURS = "/var/cache/ramd/pgraft-0123456789ab-pg18.6"
PRELOAD = Preload(
    library_dir=Path(OURS, "lib"),
    share_dir=Path(OURS, "share"),
    page=Path("/run/ramd/x.page"),
    grace_ms=500,
)


def test_nothing_is_said_without_the_extension() -> None:
    assert preload_settings(None, {"shared_preload_libraries": "x"}, major=18) == {}


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ("", "pgraft"),
        ("pg_stat_statements", "pg_stat_statements,pgraft"),
        ('auto_explain, "pg_stat_statements"', 'auto_explain,"pg_stat_statements",pgraft'),
        ("pgraft, auto_explain", "auto_explain,pgraft"),
    ],
)
def test_libraries_of_the_operator_stay(operators: str, expected: str) -> None:
    found = preload_settings(PRELOAD, {"shared_preload_libraries": operators}, major=18)
    assert found["shared_preload_libraries"] == expected


def test_paths_begin_with_ours_and_lose_an_older_one() -> None:
    older = "/var/cache/ramd/pgraft-ffffffffffff-pg18.5/lib:/opt/lib:$libdir"
    found = preload_settings(PRELOAD, {"dynamic_library_path": older}, major=18)
    assert found["dynamic_library_path"] == f"{OURS}/lib:/opt/lib:$libdir"
    assert found["extension_control_path"] == f"{OURS}/share:$system"
    assert found["pgraft.shm_path"] == "/run/ramd/x.page"
    assert found["pgraft.fence_grace_ms"] == "500"


def test_before_18_nothing_is_said_of_control_files() -> None:
    assert "extension_control_path" not in preload_settings(PRELOAD, {}, major=17)


def test_auto_conf_keeps_its_libraries_and_is_mended_again() -> None:
    auto = "shared_preload_libraries = 'auto_explain'\nwork_mem = '8MB'\n"
    once = with_lists(auto, PRELOAD)
    assert once == "shared_preload_libraries = 'auto_explain,pgraft'\nwork_mem = '8MB'\n"
    assert with_lists(once, PRELOAD) == once
    assert with_lists(once, None) == auto
    assert with_lists("", PRELOAD) == ""
