"""Names of streams, what the configuration says of them, what a look at a primary makes of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ramd.domain.fence import Preload
from ramd.domain.lsn import Lsn
from ramd.domain.server import Upstream
from ramd.domain.sync import ALONE, NO_SET, Stream, SyncConf, SyncMember, SyncSet
from ramd.postgres.conf import OWNED, render, without_owned
from ramd.postgres.standbys import (
    STREAMS,
    Naming,
    read_stream_name,
    read_sync,
    standby_names,
    stream_name,
    sync_line,
)
from ramd.postgres.sync import read_rows
from tests.support.site import site_at

UPSTREAM = Upstream(node_id=2, host="db two", port=5433)
B, C = SyncMember(node_id=2, copy="b" * 16), SyncMember(node_id=3, copy="c" * 16)
TWO = SyncConf(target=SyncSet(members=(B, C), k=2), generation=7)


@pytest.mark.parametrize("member", [B, C, SyncMember(node_id=9, copy="")])
def test_a_stream_name_can_be_read_again(member: SyncMember) -> None:
    name = stream_name(member.node_id, member.copy)
    assert re.fullmatch(STREAMS.strip("^$"), name)
    assert read_stream_name(name) == member


@pytest.mark.parametrize(
    "name", ["ramd_node_2_", "ramd_node_2_x", "ramd_node_22", "ramd_nobody", "ramd_node_2_unknown"]
)
def test_other_names_are_no_streams_of_ours(name: str) -> None:
    assert not re.fullmatch(STREAMS.strip("^$"), name)


def test_what_the_server_waits_for() -> None:
    assert standby_names(TWO) == (
        'ANY 2 ("ramd_node_2_bbbbbbbbbbbbbbbb", "ramd_node_3_cccccccccccccccc")'
    )
    assert standby_names(SyncConf()) == standby_names(SyncConf(target=ALONE)) == ""
    assert standby_names(SyncConf(blocking=True)) == 'ANY 1 ("ramd_node_nobody")'
    unnamed = SyncSet(members=(SyncMember(node_id=3, copy=""),), k=1)
    assert standby_names(SyncConf(target=unnamed)) == 'ANY 1 ("ramd_node_3_unknown")'


@pytest.mark.parametrize(
    "conf", [TWO, SyncConf(), SyncConf(target=ALONE, generation=3), SyncConf(blocking=True)]
)
def test_the_file_says_it_again(conf: SyncConf) -> None:
    assert read_sync(f"a = 1\n{sync_line(conf)}\nb = 2\n") == conf


def test_a_file_of_before_waits_for_nobody_and_a_damaged_one_for_whom_nobody_is() -> None:
    assert read_sync("a = 1\n") == SyncConf()
    for damaged in ("# sync: {", "# sync: {}", '# sync: {"members": 1}', "# sync: 7"):
        assert read_sync(damaged) == SyncConf(target=NO_SET, blocking=True)


def test_the_generation_stands_behind_the_names_in_the_same_file(tmp_path: Path) -> None:
    site = site_at(tmp_path)
    naming = Naming(copy="d" * 16, sync=TWO)
    text = render(site, UPSTREAM, {}, naming)
    assert f"application_name=ramd_node_1_{'d' * 16}" in text
    assert "primary_slot_name = 'ramd_node_1'" in text
    assert "synchronous_standby_names = 'ANY 2 (" in text
    assert read_sync(text) == TWO
    assert "pgraft.sync_generation" not in text
    preload = Preload(library_dir=tmp_path, share_dir=tmp_path, page=tmp_path / "p", grace_ms=1)
    text = render(replace(site, preload=preload), UPSTREAM, {}, naming)
    assert text.index("synchronous_standby_names") < text.index("pgraft.sync_generation = '7'")


def test_what_alter_system_said_of_it_is_taken_out() -> None:
    auto = "synchronous_standby_names = ''\npgraft.sync_generation = 9\nwork_mem = '1MB'\n"
    assert without_owned(auto) == "work_mem = '1MB'\n"
    assert {"synchronous_standby_names", "pgraft.sync_generation"} <= OWNED


ROW = ("0/5000", "ANY 1 (b)", "ramd_node_2_" + "b" * 16, "0/4000", "t", "ramd_node_2", "t", "t")


def row(**changes: str | None) -> tuple[str | None, ...]:
    names = ("end", "names", "name", "flushed", "counts", "slot", "ours", "streaming")
    return tuple(replace_in(dict(zip(names, ROW, strict=True)), changes).values())


def replace_in(row: dict[str, str], changes: dict[str, str | None]) -> dict[str, str | None]:
    return {**row, **changes}


def test_a_stream_is_read_as_it_is() -> None:
    facts = read_rows([row()])
    assert (facts.flushed, facts.names, facts.strangers) == (0x5000, "ANY 1 (b)", 0)
    stream = Stream(node_id=2, copy="b" * 16, flushed=Lsn(0x4000), counts=True)
    assert facts.streams == (stream,)


@pytest.mark.parametrize(
    ("changes", "streams", "strangers"),
    [
        ({"slot": None}, 0, 1),
        ({"slot": "ramd_node_3"}, 0, 1),
        ({"slot": "somebodys"}, 0, 1),
        ({"slot": None, "counts": "f"}, 0, 0),
        ({"ours": "f", "name": "backup"}, 0, 1),
        ({"streaming": "f"}, 0, 0),
        ({"streaming": "f", "counts": "f"}, 0, 0),
        ({"counts": "f", "flushed": None}, 1, 0),
    ],
)
def test_only_a_copy_through_its_own_slot_is_one_of_ours(
    changes: dict[str, str | None], streams: int, strangers: int
) -> None:
    """Whoever else the server counts is a reason not to trust it (attacks C7)."""
    facts = read_rows([row(**changes)])
    assert (len(facts.streams), facts.strangers) == (streams, strangers)


def test_a_stream_that_catches_up_releases_nobody_yet() -> None:
    facts = read_rows([row(streaming="f")])
    assert [stream.node_id for stream in facts.behind] == [2]
    assert facts.streams == ()


def test_without_any_stream_there_is_one_row() -> None:
    facts = read_rows([("0/1", "", None, None, None, None, None, None)])
    assert (facts.flushed, facts.streams, facts.strangers) == (1, (), 0)
