"""Replicas: cloned, followed, sealed, promoted, rewound, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ramd.domain.errors import PostgresError
from ramd.domain.lsn import parse_lsn
from ramd.domain.observation import DataKind, Position, ServerRole
from ramd.domain.server import StopMode
from ramd.postgres.conf import render, write_upstream
from ramd.postgres.instance import Instance
from ramd.postgres.wal import segment_name
from tests.postgres.conftest import READY_S, START_MS, Nodes, accepting, streams_from
from tests.postgres.test_life import both_versions
from tests.support.postgres import ask, connect, postmaster_pid
from tests.support.wait import wait_for_async

TABLE = "CREATE TABLE t (v int)"


async def final_position(server: Instance) -> Position:
    """Its sealed position, waited for."""
    found = await wait_for_async(server.sealed_position, READY_S, "the position is final")
    assert found is not None
    return found


async def rows_on(nodes: Nodes, node_id: int, count: int) -> None:
    """Wait until the node shows `count` rows of the table."""
    site = nodes.site(node_id)
    await wait_for_async(
        lambda: ask(site, "SELECT count(*) FROM t") == count, READY_S, f"{count} rows"
    )


async def caught_up(nodes: Nodes, node_id: int, of: int = 1) -> None:
    """Wait until the node has replayed everything that is written on `of` now."""
    target = ask(nodes.site(of), "SELECT pg_current_wal_flush_lsn()")
    reached = f"SELECT pg_last_wal_replay_lsn() >= '{target}'"
    site = nodes.site(node_id)
    await wait_for_async(lambda: ask(site, reached) is True, READY_S, "it has caught up")


async def test_a_clone_streams_and_both_ends_say_so(nodes: Nodes) -> None:
    primary = await nodes.primary()
    replica = await nodes.replica(2)
    ask(nodes.site(1), TABLE)
    ask(nodes.site(1), "INSERT INTO t VALUES (1)")
    await rows_on(nodes, 2, 1)
    facts = await replica.probe(timeout_ms=2000)
    assert (facts.role, facts.upstream, facts.lag_seconds) == (ServerRole.REPLICA, 1, 0.0)
    assert facts.position is not None
    assert facts.replayed_lsn is not None
    assert 0 < time.clock_gettime_ns(time.CLOCK_BOOTTIME) - (facts.fed_ns or 0) < READY_S * 1e9
    upstream = await primary.probe(timeout_ms=2000)
    assert upstream.streaming_replicas == (2,)
    assert upstream.system_id == facts.system_id
    assert ask(nodes.site(1), "SELECT count(*) FROM pg_replication_slots WHERE active") == 1
    assert not nodes.site(2).unfinished_file.exists()
    assert not list(nodes.site(2).data_dir.parent.glob("data.*"))


async def test_a_receiver_that_is_turned_away_again_and_again_is_no_stream(nodes: Nodes) -> None:
    """Without its slot it fails at once, five times a second, and calls itself streaming."""
    await nodes.primary()
    replica = await nodes.replica(2)
    drop = (
        "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active;"
        " SELECT pg_drop_replication_slot('ramd_node_2')"
    )

    def dropped() -> bool:
        try:
            ask(nodes.site(1), drop)
        except psycopg.Error:
            return False  # the receiver came back before the slot was gone
        return True

    await wait_for_async(dropped, READY_S, "the slot is gone")
    log = nodes.site(2).log_file

    def failures() -> int:
        return log.read_text().count('slot "ramd_node_2" does not exist')

    await wait_for_async(lambda: failures() >= 1, READY_S, "the receiver is turned away")
    claims = [(await replica.probe(timeout_ms=2000)).upstream for _ in range(5)]
    begun = failures()
    while failures() < begun + 5:  # bounded by the test's own timeout
        claims.append((await replica.probe(timeout_ms=2000)).upstream)
    assert set(claims) == {None}
    assert len(claims) > 50, "often enough to have met a receiver alive"


@both_versions
async def test_promotion_takes_the_timeline_it_was_given(nodes: Nodes) -> None:
    primary = await nodes.primary()
    second, third = await nodes.replica(2), await nodes.replica(3)
    ask(nodes.site(1), TABLE)
    await caught_up(nodes, 2)
    await caught_up(nodes, 3)
    await primary.stop(StopMode.IMMEDIATE, timeout_ms=START_MS)
    await second.follow(None)
    await third.follow(nodes.upstream(2))
    sealed = await final_position(second)
    done = await second.promote(5, timeout_ms=START_MS)
    assert (done.timeline, done.parent_timeline) == (5, 1)
    assert done.fork_lsn >= sealed.lsn
    facts = await second.probe(timeout_ms=2000)
    assert facts.role is ServerRole.PRIMARY
    assert facts.position is not None
    assert facts.position.timeline == 5
    assert await second.promote(5, timeout_ms=START_MS) == done
    ask(nodes.site(2), "INSERT INTO t VALUES (1)")
    await rows_on(nodes, 3, 1)
    await streams_from(third, 2)
    facts = await third.probe(timeout_ms=2000)
    assert facts.position is not None
    assert (facts.position.timeline, facts.upstream) == (5, 2)
    with pytest.raises(PostgresError, match="timeline 5 instead of 6"):
        await second.promote(6, timeout_ms=START_MS)


async def test_two_promotions_from_one_parent_never_share_a_timeline(nodes: Nodes) -> None:
    primary = await nodes.primary()
    second, third = await nodes.replica(2), await nodes.replica(3)
    ask(nodes.site(1), TABLE)
    await caught_up(nodes, 2)
    await caught_up(nodes, 3)
    await primary.stop(StopMode.IMMEDIATE, timeout_ms=START_MS)
    await second.promote(2, timeout_ms=START_MS)
    ask(nodes.site(2), "INSERT INTO t VALUES (2)")
    await second.stop(StopMode.IMMEDIATE, timeout_ms=START_MS)
    done = await third.promote(3, timeout_ms=START_MS)
    assert (done.timeline, done.parent_timeline) == (3, 1)
    ask(nodes.site(3), "INSERT INTO t VALUES (3), (3)")
    end = await second.data.end_of_wal(timeout_ms=START_MS)
    assert end is not None
    assert end.timeline == 2
    await second.data.rewind(nodes.upstream(3))
    await second.start(replica=True, upstream=nodes.upstream(3), timeout_ms=START_MS)
    await streams_from(second, 3)
    await rows_on(nodes, 2, 2)
    assert ask(nodes.site(2), "SELECT min(v) FROM t") == 3


async def test_a_seal_ends_the_intake_and_a_follow_opens_it(nodes: Nodes) -> None:
    await nodes.primary()
    replica = await nodes.replica(2)
    assert await replica.sealed_position() is None
    ask(nodes.site(1), TABLE)
    await caught_up(nodes, 2)
    await replica.follow(None)
    position = await final_position(replica)
    ask(nodes.site(1), "INSERT INTO t VALUES (1)")
    assert await replica.sealed_position() == position
    facts = await replica.probe(timeout_ms=2000)
    assert (facts.upstream, facts.lag_seconds) == (None, None)
    await replica.follow(nodes.upstream(1))
    await streams_from(replica, 1)
    await rows_on(nodes, 2, 1)
    assert await replica.sealed_position() is None


async def test_a_restarted_replica_counts_what_it_had_received(nodes: Nodes) -> None:
    """C10: it had confirmed WAL that it had not replayed when it was killed."""
    await nodes.primary()
    replica = await nodes.replica(2)
    ask(nodes.site(1), TABLE)
    await caught_up(nodes, 2)
    ask(nodes.site(2), "SELECT pg_wal_replay_pause()")
    await wait_for_async(
        lambda: ask(nodes.site(2), "SELECT pg_get_wal_replay_pause_state()") == "paused",
        READY_S,
        "replay is paused",
    )
    ask(nodes.site(1), "INSERT INTO t SELECT generate_series(1, 20000)")
    received = parse_lsn(ask(nodes.site(1), "SELECT pg_current_wal_flush_lsn()"))
    await wait_for_async(
        lambda: parse_lsn(ask(nodes.site(2), "SELECT pg_last_wal_receive_lsn()")) >= received,
        READY_S,
        "everything is received",
    )
    replayed = parse_lsn(ask(nodes.site(2), "SELECT pg_last_wal_replay_lsn()"))
    assert replayed < received
    await replica.stop(StopMode.IMMEDIATE, timeout_ms=START_MS)
    scanned = await replica.data.end_of_wal(timeout_ms=START_MS)
    await replica.start(replica=True, upstream=None, timeout_ms=START_MS)
    assert await final_position(replica) == Position(timeline=1, lsn=received)
    assert scanned == Position(timeline=1, lsn=received)


async def test_a_paused_replay_is_no_final_position(nodes: Nodes) -> None:
    await nodes.primary()
    replica = await nodes.replica(2)
    ask(nodes.site(2), "SELECT pg_wal_replay_pause()")
    await replica.follow(None)
    for _ in range(5):
        assert await replica.sealed_position() is None
    ask(nodes.site(2), "SELECT pg_wal_replay_resume()")
    await final_position(replica)


async def test_a_diverged_primary_is_rewound_and_keeps_its_own_wal(nodes: Nodes) -> None:
    primary = await nodes.primary()
    second = await nodes.replica(2)
    ask(nodes.site(1), TABLE)
    await caught_up(nodes, 2)
    await second.follow(None)
    ask(nodes.site(1), "INSERT INTO t VALUES (1), (2), (3)")
    os.kill(postmaster_pid(primary), signal.SIGKILL)
    await asyncio.wait_for(primary.wait_exit(), 30)
    await primary.data.kill_remains(timeout_ms=START_MS)
    lost = await primary.data.end_of_wal(timeout_ms=START_MS)
    done = await second.promote(2, timeout_ms=START_MS)
    assert lost is not None
    assert lost.lsn > done.fork_lsn
    await second.ensure_slots((1, 3), primary=True)
    ask(nodes.site(2), "INSERT INTO t VALUES (9)")
    await primary.data.rewind(nodes.upstream(2))
    assert (await primary.data.inspect()).standby_signal
    kept = [path.name for path in nodes.site(1).divergent_dir.glob("*/*")]
    assert kept == [segment_name(1, done.fork_lsn, 1 << 20)]
    await primary.start(replica=True, upstream=nodes.upstream(2), timeout_ms=START_MS)
    await streams_from(primary, 2)
    await rows_on(nodes, 1, 1)


async def test_a_rewind_that_fails_leaves_a_directory_that_is_not_started(nodes: Nodes) -> None:
    primary = await nodes.primary()
    stranger = await nodes.open(2)
    await stranger.data.initdb()  # another system identifier: pg_rewind refuses
    await stranger.start(replica=False, upstream=None, timeout_ms=START_MS)
    await stranger.stop(StopMode.FAST, timeout_ms=START_MS)
    with pytest.raises(PostgresError, match="different systems"):
        await stranger.data.rewind(nodes.upstream(1))
    assert (await stranger.data.inspect()).kind is DataKind.PARTIAL
    with pytest.raises(Exception, match="did not finish"):
        await stranger.start(replica=True, upstream=None, timeout_ms=START_MS)
    aside = await stranger.data.set_aside("its rewind failed")
    assert aside.is_dir()
    assert (await stranger.data.inspect()).kind is DataKind.ABSENT
    assert str(aside) in nodes.site(2).aside_file.read_text()
    await stranger.data.clone(nodes.upstream(1))
    assert (await stranger.data.inspect()).kind is DataKind.CLUSTER
    assert primary.running


async def test_an_upstream_that_does_not_answer_harms_nothing(nodes: Nodes) -> None:
    server = await nodes.open(1, from_template=True)
    await server.start(replica=False, upstream=None, timeout_ms=START_MS)
    await accepting(server)
    await server.stop(StopMode.FAST, timeout_ms=START_MS)
    with pytest.raises(PostgresError, match="node 2 at"):
        await server.data.rewind(nodes.upstream(2))
    assert (await server.data.inspect()).kind is DataKind.CLUSTER
    third = await nodes.open(3)
    with pytest.raises(PostgresError, match="node 2 at"):
        await third.data.clone(nodes.upstream(2))
    assert (await third.data.inspect()).kind is DataKind.ABSENT


async def test_a_cancelled_clone_leaves_nothing(nodes: Nodes) -> None:
    await nodes.primary()
    replica = await nodes.open(2)
    work = asyncio.create_task(replica.data.clone(nodes.upstream(1)))
    beside = nodes.site(2).data_dir.with_name("data.clone-tmp")
    await wait_for_async((beside / "base").is_dir, READY_S, "the clone has begun")
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert not beside.exists()
    assert (await replica.data.inspect()).kind is DataKind.ABSENT
    await wait_for_async(
        lambda: (
            ask(nodes.site(1), "SELECT count(*) FROM pg_stat_replication WHERE state <> 'startup'")
            == 0
        ),
        READY_S,
        "pg_basebackup is gone",
    )


async def test_a_killed_daemons_clone_is_removed_by_the_next(nodes: Nodes) -> None:
    await nodes.primary()
    site = nodes.site(2)
    beside = site.data_dir.with_name("data.clone-tmp")
    site.prepare()
    (beside / "base").mkdir(parents=True)
    replica = await nodes.open(2)
    with pytest.raises(PostgresError, match="was not made by RAMD"):
        await replica.data.clone(nodes.upstream(1))
    site.unfinished_file.write_text(f'{{"path": "{beside}", "what": "clone"}}')
    await replica.data.clone(nodes.upstream(1))
    assert not beside.exists()


async def test_passwords_reach_replicas_and_no_log(nodes: Nodes) -> None:
    secret: dict[str, Any] = {
        "replication_password": "it's: a \\ secret",
        "auth_method": "scram-sha-256",
    }
    await nodes.primary(**secret, superuser_password="another")
    replica = await nodes.replica(2, **secret)
    facts = await replica.probe(timeout_ms=2000)
    assert facts.upstream == 1
    role = nodes.site(1).options.replication_user
    with pytest.raises(Exception, match="password"):
        connect(nodes.site(1), host="127.0.0.1", user=role)
    with connect(nodes.site(1), host="127.0.0.1", password="another"):
        pass
    texts = [p.read_text() for p in nodes.cluster.folder.glob("n*/log/*")]
    assert not any("secret" in text or "another" in text for text in texts)
    assert (await replica.data.inspect()).kind is DataKind.CLUSTER
    await replica.stop(StopMode.FAST, timeout_ms=START_MS)
    await replica.data.rewind(nodes.upstream(1))


async def test_slots_follow_the_members(nodes: Nodes) -> None:
    primary = await nodes.primary()
    replica = await nodes.replica(2)
    names = "SELECT string_agg(slot_name, ' ' ORDER BY 1) FROM pg_replication_slots"
    kept = f"{names} WHERE restart_lsn IS NOT NULL"
    assert ask(nodes.site(1), names) == "ramd_node_2 ramd_node_3"
    assert ask(nodes.site(1), kept) == "ramd_node_2 ramd_node_3"
    await replica.ensure_slots((1, 2, 3), primary=False)
    assert ask(nodes.site(2), names) == "ramd_node_1 ramd_node_3"
    assert ask(nodes.site(2), kept) is None
    ask(nodes.site(2), "SELECT pg_drop_replication_slot('ramd_node_3')")
    ask(nodes.site(2), "SELECT pg_create_physical_replication_slot('ramd_node_3', true)")
    await replica.ensure_slots((1, 2, 3), primary=False)
    assert ask(nodes.site(2), kept) is None
    ask(nodes.site(1), "SELECT pg_create_physical_replication_slot('somebody_elses')")
    await primary.ensure_slots((1, 2), primary=True)
    assert ask(nodes.site(1), names) == "ramd_node_2 somebody_elses"
    await replica.ensure_slots((1,), primary=False)
    assert ask(nodes.site(1), names) == "ramd_node_2 somebody_elses"

    await primary.ensure_slots((1,), primary=True)  # node 2 still streams through it
    assert ask(nodes.site(1), names) == "somebody_elses"


async def test_what_the_other_node_altered_does_not_come_with_its_copy(nodes: Nodes) -> None:
    await nodes.primary()
    ask(nodes.site(1), "ALTER SYSTEM SET primary_conninfo = 'host=nowhere'")
    ask(nodes.site(1), "ALTER SYSTEM SET work_mem = '5MB'")
    await nodes.replica(2)
    assert ask(nodes.site(2), "SHOW work_mem") == "5MB"
    conf = nodes.site(2).data_dir / "postgresql.conf"
    assert str(nodes.site(1).conf_file) not in conf.read_text()
    assert nodes.site(2).conf_file.read_text() == render(nodes.site(2), nodes.upstream(1), {})


async def test_a_promotion_that_never_happened_does_not_stop_the_next_start(nodes: Nodes) -> None:
    await nodes.primary()
    replica = await nodes.replica(2)
    await replica.stop(StopMode.IMMEDIATE, timeout_ms=START_MS)
    for name in ("pg_wal/00000002.history", "pg_wal/00000003.history", "promote"):
        Path(nodes.site(2).data_dir, name).touch()
    await replica.start(replica=True, upstream=nodes.upstream(1), timeout_ms=START_MS)
    await streams_from(replica, 1)


async def test_a_slow_disk_holds_up_no_heartbeat_and_no_reload(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing whom to follow happens beside the event loop; cut short, it is told later."""
    await nodes.primary()
    replica = await nodes.replica(2)
    slow = threading.Event()

    def write_slowly(*args: Any, **named: Any) -> bool:
        slow.wait(10)
        return write_upstream(*args, **named)

    monkeypatch.setattr("ramd.postgres.instance.write_upstream", write_slowly)
    following = asyncio.ensure_future(replica.follow(None))
    await asyncio.sleep(0)
    assert not following.done(), "the loop goes on while the disk is slow"
    following.cancel()
    slow.set()
    with pytest.raises(asyncio.CancelledError):
        await following
    await replica.follow(None)

    await final_position(replica)  # the file that was written is obeyed
