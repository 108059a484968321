"""The files of a server that loads the extension: the operator's own lists, wherever they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramd.domain.errors import ConfigError
from ramd.domain.fence import Preload
from ramd.domain.server import Upstream
from ramd.postgres.conf import INCLUDE_DEPTH_MAX, MARK, give_back, render, write_all
from ramd.postgres.preload import LISTS, with_lists
from ramd.postgres.quote import conf_value
from ramd.postgres.settings import parse_settings
from tests.support.site import site_at

UPSTREAM = Upstream(node_id=2, host="db2", port=5432)
OLD = "/var/cache/ramd/pgraft-0123456789ab-pg18.5"
NEW = "/var/cache/ramd/pgraft-ba9876543210-pg18.6"


def preload_of(build: str) -> Preload:
    return Preload(
        library_dir=Path(build, "lib"),
        share_dir=Path(build, "share"),
        page=Path("/dev/shm/ramd/ramd-1.page"),
        grace_ms=700,
    )


class Files:
    """A data directory with `conf` as its postgresql.conf, and what RAMD makes of it."""

    def __init__(self, folder: Path, conf: str = "", auto: str = "", *, major: int = 18) -> None:
        self.site = site_at(folder, major=major, preload=preload_of(NEW))
        self.data = self.site.data_dir
        self.data.mkdir()
        self.conf = conf
        self.put("postgresql.conf", conf)
        if auto:
            self.put("postgresql.auto.conf", auto)

    def put(self, name: str, text: str) -> None:
        path = self.data / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def preload(self, preload: Preload | None) -> None:
        self.site = replace(self.site, preload=preload)

    def written(self, upstream: Upstream | None = None) -> dict[str, str]:
        """Settings of RAMD's own file after a start."""
        write_all(self.site, upstream)
        return parse_settings(self.site.conf_file.read_text())

    @property
    def auto(self) -> str:
        return (self.data / "postgresql.auto.conf").read_text()

    def libraries(self) -> str:
        return self.written()["shared_preload_libraries"]


# --- postgresql.conf and what it includes -----------------------------------------------------


def test_lists_of_postgresql_conf_stay(tmp_path: Path) -> None:
    files = Files(
        tmp_path,
        "shared_preload_libraries = 'auto_explain, pg_stat_statements'  # theirs\n"
        "dynamic_library_path = '/opt/it''s:$libdir'\n",
    )
    written = files.written()
    assert written["shared_preload_libraries"] == "auto_explain,pg_stat_statements,pgraft"
    assert written["dynamic_library_path"] == f"{NEW}/lib:/opt/it's:$libdir"
    assert written["extension_control_path"] == f"{NEW}/share:$system"
    assert written["pgraft.shm_path"] == "/dev/shm/ramd/ramd-1.page"
    assert written["pgraft.fence_grace_ms"] == "700"
    assert (files.data / "postgresql.conf").read_text().startswith(files.conf)


def test_a_list_that_is_commented_out_is_not_theirs(tmp_path: Path) -> None:
    assert Files(tmp_path, "#shared_preload_libraries = 'x'\n").libraries() == "pgraft"


def test_the_last_of_several_lines_counts_wherever_it_is(tmp_path: Path) -> None:
    include_last = "shared_preload_libraries = 'first'\ninclude 'more.conf'\n"
    files = Files(tmp_path, include_last)
    files.put("more.conf", "SHARED_PRELOAD_LIBRARIES = second\n")
    assert files.libraries() == "second,pgraft"
    files.put("postgresql.conf", "include_if_exists = 'more.conf'\n" + include_last[:40])
    assert files.libraries() == "first,pgraft"
    files.put("postgresql.conf", "include_if_exists = 'gone.conf'\n")
    assert files.libraries() == "pgraft"


def test_a_directory_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    files = Files(tmp_path, "include_dir = 'conf.d'\n")
    files.put("conf.d/20-b.conf", "shared_preload_libraries = 'later'\n")
    files.put("conf.d/10-a.conf", "shared_preload_libraries = 'earlier'\n")
    files.put("conf.d/.hidden.conf", "shared_preload_libraries = 'hidden'\n")
    files.put("conf.d/30-c.bak", "shared_preload_libraries = 'backup'\n")
    (files.data / "conf.d" / "40-d.conf").mkdir()
    assert files.libraries() == "later,pgraft"


def test_a_relative_include_is_meant_from_the_file_that_has_it(tmp_path: Path) -> None:
    files = Files(tmp_path, "include_dir 'conf.d'\n")
    files.put("conf.d/all.conf", "include 'inner/x'\n")
    (files.data / "conf.d" / "inner").mkdir()
    files.put("conf.d/inner/x", "include '../y'\n")
    files.put("conf.d/y", "shared_preload_libraries = 'deep'\n")
    files.put("y", "shared_preload_libraries = 'wrong'\n")
    assert files.libraries() == "deep,pgraft"


def test_includes_in_a_circle_end(tmp_path: Path) -> None:
    files = Files(tmp_path, "shared_preload_libraries = 'a'\ninclude 'postgresql.conf'\n")
    assert files.libraries() == "a,pgraft"


@pytest.mark.parametrize(
    ("depth", "found"), [(INCLUDE_DEPTH_MAX, "x,pgraft"), (INCLUDE_DEPTH_MAX + 1, "pgraft")]
)
def test_includes_are_followed_as_deep_as_the_server_does(
    tmp_path: Path, depth: int, found: str
) -> None:
    files = Files(tmp_path, "include '1'\n")
    for number in range(1, depth):
        files.put(str(number), f"include '{number + 1}'\n")
    files.put(str(depth), "shared_preload_libraries = 'x'\n")
    assert files.libraries() == found


def test_settings_of_the_daemons_own_options_stay_too(tmp_path: Path) -> None:
    site = Files(tmp_path).site
    extra = {"Shared_Preload_Libraries": "auto_explain", "work_mem": "7MB"}
    more = replace(site, options=replace(site.options, extra=extra))
    written = parse_settings(render(more, None, {"shared_preload_libraries": "theirs"}))
    assert written["shared_preload_libraries"] == "auto_explain,pgraft"


@pytest.mark.parametrize("key", ["pgraft.shm_path", "pgraft.fence_grace_ms"])
def test_where_the_page_is_nobody_else_says(tmp_path: Path, key: str) -> None:
    files = Files(tmp_path, f"{key} = '7'\n", auto=f"{key} = '7'\nwork_mem = '8MB'\n")
    assert files.written()[key] != "7"
    assert files.auto == "work_mem = '8MB'\n"
    site = replace(files.site, options=replace(files.site.options, extra={key: "7"}))
    with pytest.raises(ConfigError, match="RAMD owns it"):
        render(site, None, {})


def test_a_server_before_18_is_not_told_of_control_files(tmp_path: Path) -> None:
    written = Files(tmp_path, major=17).written()
    assert "extension_control_path" not in written
    assert written["dynamic_library_path"] == f"{NEW}/lib:$libdir"


# --- postgresql.auto.conf, which is read last -------------------------------------------------

AUTO = (
    "# Do not edit this file manually!\n"
    "shared_preload_libraries = 'pg_stat_statements'\n"
    "dynamic_library_path = '/opt/it''s#:$libdir'\n"
    "work_mem = '8MB'\n"
)


def test_alter_system_keeps_what_it_set_and_loads_ours(tmp_path: Path) -> None:
    files = Files(tmp_path, "shared_preload_libraries = 'hidden'\n", AUTO)
    files.written()
    found = parse_settings(files.auto)
    assert found == {
        "shared_preload_libraries": "pg_stat_statements,pgraft",
        "dynamic_library_path": f"{NEW}/lib:/opt/it's#:$libdir",
        "work_mem": "8MB",
    }


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    files = Files(tmp_path, "shared_preload_libraries = 'auto_explain'\n", AUTO)
    files.written(UPSTREAM)
    before = {p: (p.read_text(), p.stat().st_mtime_ns) for p in tmp_path.rglob("*.conf")}
    for _ in range(3):
        files.written(UPSTREAM)
    assert {p: (p.read_text(), p.stat().st_mtime_ns) for p in tmp_path.rglob("*.conf")} == before


def test_a_new_build_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    files = Files(tmp_path, f"dynamic_library_path = '{OLD}/lib:/opt:$libdir'\n", AUTO)
    files.preload(preload_of(OLD))
    files.written()
    assert OLD in files.auto
    files.preload(preload_of(NEW))
    written = files.written()
    for text in (files.auto, str(written)):
        assert OLD not in text
        assert text.count(f"{NEW}/lib") == 1
    assert written["dynamic_library_path"] == f"{NEW}/lib:/opt:$libdir"


def test_without_the_extension_nothing_of_it_is_left(tmp_path: Path) -> None:
    files = Files(tmp_path, "shared_preload_libraries = 'auto_explain'\n", AUTO)
    files.written()
    files.preload(None)
    written = files.written()
    assert not set(written) & {*LISTS, "pgraft.shm_path", "pgraft.fence_grace_ms"}
    assert parse_settings(files.auto) == parse_settings(AUTO)
    assert "pgraft" not in files.auto


def test_a_directory_that_is_given_back_loads_what_it_loaded_before(tmp_path: Path) -> None:
    files = Files(tmp_path, "shared_preload_libraries = 'auto_explain'\n", AUTO)
    files.written(UPSTREAM)
    (files.data / "standby.signal").touch()
    give_back(files.data)
    assert (files.data / "postgresql.conf").read_text() == files.conf
    assert parse_settings(files.auto) == parse_settings(AUTO)
    assert not (files.data / "standby.signal").exists()


def test_a_directory_that_was_never_ours_is_given_back_untouched(tmp_path: Path) -> None:
    files = Files(tmp_path, "work_mem = '1MB'\n", "shared_preload_libraries = 'pgraft'\n")
    give_back(files.data)
    assert MARK not in (files.data / "postgresql.conf").read_text()
    assert files.auto == "shared_preload_libraries = 'pgraft'\n"


# --- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("a = 'b'", "b"),
        ("a=b # said", "b"),
        ("a 'b # not said' # said", "b # not said"),
        ("A = 'it''s'", "it's"),
        (r"a = 'it\'s'", "it's"),
        (r"a = 'C:\\x\ty\101'", "C:\\x\tyA"),
        ("a = ''", ""),
        ("a = ", ""),
    ],
)
def test_a_value_is_what_the_server_reads(line: str, value: str) -> None:
    assert parse_settings(line) == {"a": value}


values = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20)


@given(values)
def test_what_is_written_is_read_back(value: str) -> None:
    assert parse_settings(f"a = {conf_value(value)}  # it") == {"a": value}


@given(values)
def test_any_list_of_the_operator_is_extended_once(value: str) -> None:
    for key in LISTS:
        line = f"{key} = {conf_value(value)}\n"
        once = with_lists(line, preload_of(NEW))
        assert with_lists(once, preload_of(NEW)) == once
        assert NEW not in with_lists(once, None)
