"""What a server is told of its synchronous set, and what it says of it, on a real PostgreSQL."""

from __future__ import annotations

import threading

import pytest

from ramd.domain.errors import PostgresError
from ramd.domain.server import StopMode
from ramd.domain.sync import ALONE, SyncConf, SyncMember, SyncSet
from ramd.postgres.instance import Instance
from ramd.postgres.standbys import standby_names
from tests.postgres.conftest import READY_S, START_MS, Nodes, accepting, streams_from
from tests.postgres.test_life import both_versions
from tests.support.postgres import ask, connect
from tests.support.wait import wait_for_async

NAMES = "SHOW synchronous_standby_names"
B, C = SyncMember(node_id=2, copy="b" * 16), SyncMember(node_id=3, copy="c" * 16)
ANY_1 = SyncConf(target=SyncSet(members=(B, C), k=1), generation=1)
ONLY_C = SyncConf(target=SyncSet(members=(C,), k=1), generation=2)


async def goes_by(nodes: Nodes, conf: SyncConf) -> None:
    site = nodes.site(1)
    await wait_for_async(lambda: ask(site, NAMES) == standby_names(conf), READY_S, "it is loaded")


async def counted(server: Instance) -> list[tuple[int, str, bool]]:
    facts = await server.sync_facts(timeout_ms=2000)
    return sorted((s.node_id, s.copy, s.counts) for s in facts.streams)


@both_versions
async def test_a_primary_waits_for_the_copies_it_was_told_of(nodes: Nodes) -> None:
    primary = await nodes.primary()
    await nodes.replica(2, copy=B.copy)
    ask(nodes.site(1), "CREATE TABLE t (v int)")
    assert await counted(primary) == [(2, B.copy, False)]
    await primary.tell_sync(ANY_1)
    await goes_by(nodes, ANY_1)

    async def confirms() -> bool:
        return await counted(primary) == [(2, B.copy, True)]

    await wait_for_async(confirms, READY_S, "the replica is counted")
    ask(nodes.site(1), "INSERT INTO t VALUES (1)")
    facts = await primary.sync_facts(timeout_ms=2000)
    assert (facts.names, facts.strangers) == (standby_names(ANY_1), 0)
    assert facts.streams[0].flushed >= facts.flushed > 0
    # Another copy of the same node is somebody else.
    await primary.tell_sync(ONLY_C)
    await goes_by(nodes, ONLY_C)
    written = threading.Event()

    def write() -> None:
        with connect(nodes.site(1)) as session:
            session.execute("INSERT INTO t VALUES (2)")
            written.set()

    thread = threading.Thread(target=write)
    thread.start()
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    await wait_for_async(lambda: ask(nodes.site(1), waits) == 1, READY_S, "the commit waits")
    assert not written.is_set()
    await primary.tell_sync(SyncConf(target=ALONE, generation=3))
    await wait_for_async(written.is_set, READY_S, "nobody is waited for")
    thread.join()


async def test_a_daemon_that_comes_back_does_not_weaken_its_server(nodes: Nodes) -> None:
    primary = await nodes.primary()
    await primary.tell_sync(ANY_1)
    await goes_by(nodes, ANY_1)
    again = await nodes.open(1)
    assert await again.adopt()
    assert ask(nodes.site(1), NAMES) == standby_names(ANY_1)
    await again.stop(StopMode.FAST, timeout_ms=START_MS)
    await again.start(replica=False, upstream=None, timeout_ms=START_MS)
    await accepting(again)
    assert ask(nodes.site(1), NAMES) == standby_names(ANY_1)


async def test_what_alter_system_puts_over_it_is_taken_back(nodes: Nodes) -> None:
    primary = await nodes.primary()
    await primary.tell_sync(ANY_1)
    await goes_by(nodes, ANY_1)
    ask(nodes.site(1), "ALTER SYSTEM SET synchronous_standby_names = ''")
    ask(nodes.site(1), "SELECT pg_reload_conf()")
    await wait_for_async(lambda: ask(nodes.site(1), NAMES) == "", READY_S, "it is hidden")

    async def back() -> bool:
        facts = await primary.sync_facts(timeout_ms=2000)
        return facts.names == standby_names(ANY_1)

    await wait_for_async(back, READY_S, "it is taken back")


async def test_a_replica_keeps_its_upstream_when_it_is_told_to_block(nodes: Nodes) -> None:
    await nodes.primary()
    replica = await nodes.replica(2, copy=B.copy)
    await replica.tell_sync(SyncConf(blocking=True))
    blocked = standby_names(SyncConf(blocking=True))
    site = nodes.site(2)
    await wait_for_async(lambda: ask(site, NAMES) == blocked, READY_S, "it is loaded")
    ask(nodes.site(1), "SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
    await streams_from(replica, 1)
    stream = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'"
    name = f"ramd_node_2_{B.copy}"
    await wait_for_async(lambda: ask(nodes.site(1), stream) == name, READY_S, "under its name")


async def test_a_stream_without_its_slot_is_a_stranger(nodes: Nodes) -> None:
    primary = await nodes.primary()
    replica = await nodes.replica(2, copy=B.copy)
    await primary.tell_sync(ANY_1)
    await goes_by(nodes, ANY_1)
    conf = nodes.site(2).conf_file
    conf.write_text(conf.read_text().replace("primary_slot_name = 'ramd_node_2'", ""))
    ask(nodes.site(2), "SELECT pg_reload_conf()")

    async def stranger() -> bool:
        facts = await primary.sync_facts(timeout_ms=2000)
        return facts.strangers == 1 and facts.streams == ()

    await wait_for_async(stranger, READY_S, "it is told apart")
    assert replica.running


async def test_a_clone_is_another_directory_and_a_restart_is_not(nodes: Nodes) -> None:
    primary = await nodes.primary()
    replica = await nodes.replica(2)
    first, own = replica.data.tie(), primary.data.tie()
    assert "" != first != own != ""
    await replica.stop(StopMode.FAST, timeout_ms=START_MS)
    await replica.start(replica=True, upstream=nodes.upstream(1), timeout_ms=START_MS)
    assert replica.data.tie() == first
    await replica.stop(StopMode.FAST, timeout_ms=START_MS)
    await replica.data.set_aside("test")
    assert replica.data.tie() == ""
    await replica.data.clone(nodes.upstream(1))
    assert replica.data.tie() not in ("", first)


async def test_a_server_that_is_no_primary_has_no_set(nodes: Nodes) -> None:
    await nodes.primary()
    replica = await nodes.replica(2)
    with pytest.raises(PostgresError, match="recovery is in progress"):
        await replica.sync_facts(timeout_ms=2000)
