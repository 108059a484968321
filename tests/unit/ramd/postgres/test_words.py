"""What PostgreSQL's files and programs say, understood."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ramd.domain.errors import PostgresError
from ramd.domain.lsn import Lsn
from ramd.domain.observation import Position, ServerRole
from ramd.domain.server import ControlState, ServerFacts, Upstream
from ramd.postgres.account import Account
from ramd.postgres.child import tail
from ramd.postgres.control import Control, parse_control
from ramd.postgres.pidfile import PidFile, read_pidfile
from ramd.postgres.probe import Birth, lag, read_facts, refusal
from ramd.postgres.seal import reload_taken, signals_waiting
from ramd.postgres.session import SessionError, plain
from ramd.postgres.slots import Plan, Slot, plan
from ramd.postgres.timeline import (
    Fork,
    drop_placeholders,
    file_name,
    fork_from,
    parse_history,
    write_placeholders,
)
from ramd.postgres.wal import branches, last_byte, segment_name, segment_start

MIB16 = 16 << 20
ME = Account(name="me", uid=os.geteuid(), gid=os.getegid())

CONTROL = """\
Database system identifier:           7711110129615946707
Database cluster state:               in archive recovery
Latest checkpoint location:           0/16EF458
Latest checkpoint's REDO location:    0/16EF400
Latest checkpoint's TimeLineID:       2
Minimum recovery ending location:     0/3000060
Min recovery ending loc's timeline:   3
Time of latest checkpoint:            Sun Nov 22 21:25:35 2026
Bytes per WAL segment:                16777216
"""


def test_the_control_file() -> None:
    control = parse_control(CONTROL)
    assert control.system_id == "7711110129615946707"
    assert control.state is ControlState.IN_RECOVERY
    assert control.checkpoint_lsn == 0x16EF458
    assert control.redo_lsn == 0x16EF400
    assert (control.checkpoint_timeline, control.timeline) == (2, 3)
    odd = CONTROL.replace("in archive recovery", "starting up")
    assert parse_control(odd).state is ControlState.OTHER
    with pytest.raises(PostgresError, match="TimeLineID"):
        parse_control(CONTROL.replace("TimeLineID", "Zeitachse"))


def test_the_lock_file(tmp_path: Path) -> None:
    path = tmp_path / "postmaster.pid"
    assert read_pidfile(path) is None
    path.write_text("")
    assert read_pidfile(path) is None
    path.write_text("-12\n")
    assert read_pidfile(path) == PidFile(pid=12)
    path.write_text("12\n/d\n1700000000\n5432\n/s\n127.0.0.1\n  917 42\nready   \n")
    assert read_pidfile(path) == PidFile(
        pid=12,
        start_unix_s=1700000000,
        port=5432,
        socket_dir="/s",
        shm_key=917,
        shm_id=42,
        status="ready",
    )


def test_a_history() -> None:
    forks = parse_history("# comment\n1\t0/3000110\tno recovery target\n\n4\t0/5000000\tx y\n")
    assert forks == (Fork(timeline=1, lsn=Lsn(0x3000110)), Fork(timeline=4, lsn=Lsn(0x5000000)))
    assert fork_from(forks, 1) == 0x3000110
    assert fork_from(forks, 2) is None
    assert parse_history("") == ()
    for bad in ("1\n", "x 0/1\n", "1 01\n"):
        with pytest.raises(PostgresError):
            parse_history(bad)


def test_placeholders_fill_every_gap_and_no_more(tmp_path: Path) -> None:
    (tmp_path / file_name(3)).write_text("1\t0/1\tx\n")
    made = write_placeholders(tmp_path, ME, 1, 5)
    assert [path.name for path in made] == [file_name(2), file_name(4)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [file_name(n) for n in (2, 3, 4)]
    assert write_placeholders(tmp_path, ME, 4, 5) == []
    for current, wanted in ((5, 5), (6, 5), (1, 3), (1, 1_000_000)):
        with pytest.raises(PostgresError):
            write_placeholders(tmp_path, ME, current, wanted)


def test_only_placeholders_of_no_promotion_are_dropped(tmp_path: Path) -> None:
    for number, text in ((2, ""), (3, "1\t0/1\tx\n"), (4, ""), (5, "")):
        (tmp_path / file_name(number)).write_text(text)
    assert drop_placeholders(tmp_path) == [4, 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == [file_name(2), file_name(3)]


def test_names_of_wal_files() -> None:
    assert segment_name(1, Lsn(0x3000110), MIB16) == "000000010000000000000003"
    assert segment_name(0xAB, Lsn(0x1_FF00_0000), MIB16) == "000000AB00000001000000FF"
    assert segment_name(1, Lsn(0x1_0010_0000), 1 << 20) == "000000010000000100000001"
    for timeline, lsn in ((1, 0x3000110), (0xAB, 0x1_FF00_0000)):
        name = segment_name(timeline, Lsn(lsn), MIB16)
        assert segment_start(name, MIB16) == (timeline, lsn - lsn % MIB16)
    assert segment_start("000000010000000000000003.partial", MIB16) is None


def control_at(timeline: int, redo: int) -> Control:
    return Control(
        system_id="1",
        state=ControlState.IN_PRODUCTION,
        checkpoint_lsn=Lsn(redo),
        redo_lsn=Lsn(redo),
        checkpoint_timeline=timeline,
        recovery_lsn=Lsn(0),
        recovery_timeline=0,
        segment_bytes=MIB16,
    )


def test_the_newest_timeline_that_leaves_the_known_one_is_read_first(tmp_path: Path) -> None:
    def wal(timeline: int, lsn: int) -> None:
        (tmp_path / segment_name(timeline, Lsn(lsn), MIB16)).touch()

    def history(timeline: int, text: str) -> None:
        (tmp_path / file_name(timeline)).write_text(text)

    wal(1, 0x3000000)
    wal(3, 0x4000000)
    wal(5, 0x1000000)
    history(2, "")  # placeholder
    history(3, "1\t0/4000110\tx\n")
    history(4, "1\t0/4000110\tx\n3\t0/5000000\ty\n")  # known by name only, no WAL of it here
    history(5, "1\t0/1000110\tx\n")  # leaves before the checkpoint: not this server's future
    control = control_at(1, 0x3000028)
    assert branches(tmp_path, control) == [(3, 0x4000110), (1, 0x3000028)]


def test_the_run_of_wal_files_ends_at_the_first_gap(tmp_path: Path) -> None:
    for lsn in (0x3000000, 0x4000000, 0x6000000):
        (tmp_path / segment_name(1, Lsn(lsn), MIB16)).touch()
    assert last_byte(tmp_path, 1, Lsn(0x3000028), MIB16) == 0x5000000
    assert last_byte(tmp_path, 2, Lsn(0x3000028), MIB16) == 0x3000000


def test_the_plan_for_slots() -> None:
    have = [
        Slot(name="ramd_node_1", active=False, reserved=True),
        Slot(name="ramd_node_2", active=True, reserved=True),
        Slot(name="ramd_node_3", active=False, reserved=True, lost=True),
        Slot(name="ramd_node_5", active=False, reserved=False),
        Slot(name="ramd_node_6", active=True, reserved=True),
    ]
    wanted = [f"ramd_node_{n}" for n in (1, 2, 3, 4)]
    assert plan(have, wanted, primary=True) == Plan(
        drop=("ramd_node_3", "ramd_node_5"),
        create=("ramd_node_3", "ramd_node_4"),
        evict=("ramd_node_6",),
    )
    assert plan(have, wanted, primary=False) == Plan(
        drop=("ramd_node_1", "ramd_node_3", "ramd_node_5"),
        create=("ramd_node_1", "ramd_node_3", "ramd_node_4"),
    )
    settled = [Slot(name=name, active=False, reserved=False) for name in wanted]
    for primary in (True, False):
        assert plan(settled, wanted, primary=primary) == Plan(drop=(), create=())


BIRTH = Birth(system_id="77", started_unix_ms=5, version="18.6")
AT = Position(timeline=1, lsn=Lsn(16))


def test_a_replica_follows_only_the_node_its_receiver_is_connected_to() -> None:
    row = ("t", "0/10", None, "f", "1.5", "h", "5433", None, "2000")
    same = Upstream(node_id=2, host="h", port=5433)
    other = Upstream(node_id=3, host="h", port=5434)
    facts = read_facts(row, BIRTH, AT, same, asked_ns=9000)
    assert (facts.role, facts.upstream, facts.lag_seconds) == (ServerRole.REPLICA, 2, 1.5)
    assert facts.fed_ns == 7000
    elsewhere = read_facts(row, BIRTH, AT, other, asked_ns=9000)
    assert (elsewhere.upstream, elsewhere.fed_ns) == (None, None)
    assert read_facts(row, BIRTH, AT, None).upstream is None
    idle = ("t", "0/10", None, "t", "1.5", None, None, None, None)
    assert read_facts(idle, BIRTH, AT, same).lag_seconds is None
    assert read_facts((*row[:8], None), BIRTH, AT, same).fed_ns is None, "not shown to everybody"


def test_a_primary_names_who_streams_from_it() -> None:
    row = ("f", "0/10", "000000010000000000000001", None, None, None, None, "3 2", None)
    facts = read_facts(row, BIRTH, AT, None)
    assert (facts.role, facts.streaming_replicas) == (ServerRole.PRIMARY, (2, 3))
    assert (facts.replayed_lsn, facts.lag_seconds) == (None, None)


def test_lag_is_none_when_nothing_is_known_and_zero_when_all_is_replayed() -> None:
    assert lag(caught_up=True, age="3600") == 0.0
    assert lag(caught_up=False, age="-0.2") == 0.0
    assert lag(caught_up=False, age=None) is None


def test_refusals_tell_a_full_server_from_one_that_hangs() -> None:
    def said(words: str) -> ServerFacts:
        return refusal(SessionError(plain(words)))

    prefix = 'connection to server on socket "/run/x" failed: FATAL:  '
    assert said(f"{prefix}sorry, too many clients already").accepting
    assert said(
        f"{prefix}number of requested standby connections exceeds max_wal_senders (currently 20)"
    ).accepting
    starting = said(f"{prefix}the database system is starting up\n")
    assert (starting.accepting, starting.refused) == (False, "starting up")
    hung = refusal(SessionError("no answer", timed_out=True))
    assert (hung.accepting, hung.refused) == (False, "timeout")
    assert plain("") == "connection lost"


def test_the_end_of_a_log_from_where_we_began(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert tail(path, 0) == ""
    path.write_text("old\nnew\n")
    assert tail(path, 4) == "new"
    assert tail(path, 100) == "old\nnew"  # it was truncated in the meantime
    assert tail(path, 0, bytes_max=4) == "new"


def test_signals_of_a_process_that_is_gone_are_unknown() -> None:
    assert signals_waiting(2**22 + 1) is None
    mine = signals_waiting(os.getpid())
    assert mine is not None
    assert mine[0] == "R"
    assert not reload_taken(2**22 + 1, os.getpid())
