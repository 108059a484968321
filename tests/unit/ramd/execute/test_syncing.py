"""The set is told to the server, proven there, and only then settled or written for."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ramd.domain.errors import PostgresError
from ramd.domain.sync import (
    ALONE,
    SyncConf,
    SyncRecord,
)
from ramd.policy.syncing import JOIN_NS
from ramd.state.sync import ChangeSync, RelaxSync, SettleSync
from tests.support.fake_fence import acknowledges, crash_cycle
from tests.support.fenced_node import LEAD
from tests.support.sync_primary import COPY, ENOUGH_S, Primary, any_of, granted
from tests.support.virtual_time import elapse, virtual

ALONE_NOW = SyncConf(target=ALONE, generation=8)


@virtual
async def test_no_write_is_acknowledged_before_the_set_of_the_grant_is_proven(
    tmp_path: Path,
) -> None:
    """Loaded by every process, and what was on disk then confirmed by one of two (attacks C9)."""
    primary = Primary(tmp_path, granted(any_of(1, 2, 3)))
    primary.show(loaded=6)
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await elapse(ENOUGH_S)
        assert primary.node.server.primary
        assert primary.node.server.told == SyncConf(target=any_of(1, 2, 3), generation=7)
        assert "still goes by set 6, not 7" in primary.waits()
        primary.show(loaded=7, flushed={2: 1999, 3: 1500})
        await elapse(ENOUGH_S)
        assert primary.waits().startswith("0 of 1 members have confirmed WAL to 0/7D0")
        assert primary.fence.published == []
        activity = primary.node.executor.standing().activity
        assert activity == "primary of epoch 2, waiting for synchronous replicas"
        assert primary.node.server.slots == (True, (2, 3))
        # What was written meanwhile need not be confirmed: it was not acknowledged by another set.
        primary.show(end=9000, flushed={2: 1999, 3: 2000})
        await primary.node.until(lambda: acknowledges(primary.node.server))
        assert primary.waits() == ""
        assert primary.syncing.seen() is not None
        await elapse(ENOUGH_S)
        assert primary.record == SyncRecord(generation=7, rules=(any_of(1, 2, 3),))
        assert isinstance(primary.proposed[0], SettleSync)


@virtual
async def test_what_was_confirmed_before_everybody_had_loaded_the_set_does_not_count(
    tmp_path: Path,
) -> None:
    """A walsender that was stopped while the number grew releases commits by the old one (C5)."""
    primary = Primary(tmp_path, granted(any_of(2, 2, 3), old=any_of(1, 2, 3)))
    state = primary.node.consensus.cluster
    two = replace(state.settings, num_sync_standbys=2)
    primary.node.consensus.cluster = replace(state, settings=two)
    primary.show(loaded=6, end=1000, flushed={2: 1500, 3: 1500})
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await elapse(ENOUGH_S)
        primary.show(loaded=7, end=2000)
        await elapse(ENOUGH_S)
        assert "0 of 2 members have confirmed WAL to 0/7D0" in primary.waits()
        assert primary.record.target == any_of(2, 2, 3)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"defined": False}, "the checkpointer has not told sessions to wait yet"),
        ({"strangers": 1}, "a stream bears the name of a member without its slot"),
        ({"flushed": {2: 5000, 3: 5000}}, "the stream of node 3 is still counted"),
        ({"flushed": {2: 5000}, "counted": set()}, "0 of 1 members have confirmed"),
    ],
)
@virtual
async def test_what_keeps_a_set_unproven(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    primary = Primary(tmp_path, granted(any_of(1, 2)))
    primary.show(flushed={2: 5000})
    primary.show(**changes)
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await elapse(ENOUGH_S)
        assert why in primary.waits()
        assert primary.fence.published == []
        seen = primary.syncing.seen()
        assert seen is not None
        assert why in seen.waits_for
        assert seen.generation == 0
        primary.show(defined=True, strangers=0, flushed={2: 5000}, counted={2})
        await primary.node.until(lambda: acknowledges(primary.node.server))


@virtual
async def test_a_server_that_does_not_show_its_set_reads_it_again(tmp_path: Path) -> None:
    """A checkpointer that was forked with it, into memory that was made before, says nothing."""
    primary = Primary(tmp_path, granted(any_of(1, 2)))
    primary.show(flushed={2: 5000}, counted={2}, loaded=6)

    def reading(call: str) -> None:
        if call == "tell_again":
            primary.show(loaded=7)

    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await elapse(3.5)
        again = primary.node.server.calls.count("tell_again")
        assert 2 <= again <= 3
        primary.node.server.on_call = reading
        await primary.node.until(lambda: acknowledges(primary.node.server), within_s=1.5)


@virtual
async def test_a_silent_page_proves_nothing(tmp_path: Path) -> None:
    primary = Primary(tmp_path, granted(any_of(1, 2)))
    primary.show(flushed={2: 5000})
    primary.fence.latest = None
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await elapse(ENOUGH_S)
        assert primary.waits() == "the page of the server is silent"


@virtual
async def test_after_a_crash_that_the_server_survives_the_end_of_recovery_is_confirmed_first(
    tmp_path: Path,
) -> None:
    """What recovery makes readable must not be lost either (attacks H6)."""
    primary = Primary(tmp_path, SyncRecord(generation=7, rules=(any_of(1, 2, 3),)))
    primary.show(flushed={2: 2000, 3: 2000})
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await primary.node.until(lambda: acknowledges(primary.node.server))
        primary.show(end=3000)
        crash_cycle(primary.node.server)
        await elapse(1.5)
        assert not acknowledges(primary.node.server)
        assert "0 of 1 members have confirmed WAL to 0/BB8" in primary.waits()
        primary.show(flushed={2: 2000, 3: 3000})
        await primary.node.until(lambda: acknowledges(primary.node.server))


@virtual
async def test_a_quick_recovery_is_confirmed_first_whoever_notices_it_before_the_guard(
    tmp_path: Path,
) -> None:
    """After a stall of the daemon the executor may look before the guard does."""
    primary = Primary(tmp_path, SyncRecord(generation=7, rules=(any_of(1, 2, 3),)))
    primary.show(flushed={2: 2000, 3: 2000})
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await primary.node.until(lambda: acknowledges(primary.node.server))
        await elapse(ENOUGH_S)
        primary.show(end=3000)
        crash_cycle(primary.node.server, recovers_s=0)
        primary.node.executor.pursue(LEAD)
        await elapse(1.5)
        assert {start for _, start in primary.fence.published} == {1}
        assert not acknowledges(primary.node.server)
        primary.show(flushed={2: 2000, 3: 3000})
        await primary.node.until(lambda: acknowledges(primary.node.server))


@virtual
async def test_without_a_set_a_primary_writes_at_once(tmp_path: Path) -> None:
    primary = Primary(tmp_path, SyncRecord())
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await primary.node.until(lambda: acknowledges(primary.node.server))
        assert primary.node.server.told == SyncConf()


@virtual
async def test_a_set_begins_when_replicas_have_streamed_for_a_while(tmp_path: Path) -> None:
    primary = Primary(tmp_path, SyncRecord())
    primary.show(loaded=0, flushed={2: 2000, 3: 2000})
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await elapse(JOIN_NS / 1e9 + 5)
        assert primary.record.target == any_of(1, 2, 3)
        assert primary.record.primary_copy == primary.node.store.record.copy
        assert primary.node.server.told == SyncConf(target=any_of(1, 2, 3), generation=1)
        primary.show(loaded=1)
        await primary.node.until(lambda: primary.record.target is None)
        decided = primary.node.consensus.cluster.decisions[-1]
        assert decided.rule == "sync_changed"
        assert decided.details[0] == f"node 2: copy {COPY[2]} has confirmed 0/7D0"


@virtual
async def test_the_server_waits_for_nobody_only_when_that_is_recorded(tmp_path: Path) -> None:
    """Between the two entries of going on alone it goes by the old set (attacks H7)."""
    primary = Primary(tmp_path, SyncRecord(generation=7, rules=(any_of(1, 2, 3),)))
    primary.show(flushed={2: 2000, 3: 2000})
    told: list[tuple[SyncConf | None, bool]] = []
    propose = primary.node.consensus.propose

    async def noting(command: bytes, *, timeout_s: float) -> None:
        await propose(command, timeout_s=timeout_s)
        if primary.proposed:
            told.append((primary.node.server.told, primary.record.rules == (ALONE,)))

    primary.node.consensus.propose = noting  # type: ignore[method-assign]
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await primary.node.until(lambda: acknowledges(primary.node.server))
        primary.show(flushed={})
        await primary.node.until(lambda: primary.node.server.told == ALONE_NOW)
        assert [type(c) for c in primary.proposed] == [ChangeSync, RelaxSync]
        assert [conf.target for conf, _ in told if conf is not None] == [any_of(1, 2, 3)] * 2
        assert [alone for _, alone in told] == [False, True]


@virtual
async def test_nothing_is_proposed_without_the_lease_and_what_would_be_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "ramd")
    primary = Primary(tmp_path, SyncRecord(generation=7, rules=(any_of(1, 2, 3),)))
    primary.show(flushed={2: 2000, 3: 2000})
    async with primary.node.running(primary.syncing.run()):
        primary.node.lease(2)
        primary.node.executor.pursue(LEAD)
        await primary.node.until(lambda: acknowledges(primary.node.server))
        primary.node.consensus.held.epoch = 0
        primary.show(flushed={})
        await elapse(60)
        assert primary.proposed == []
        said = [r for r in caplog.records if getattr(r, "event", "") == "sync_proposed"]
        assert len(said) == 1


@virtual
async def test_a_replica_waits_for_nobody_that_could_answer(tmp_path: Path) -> None:
    primary = Primary(tmp_path, SyncRecord(generation=7, rules=(any_of(1, 2, 3),)))
    state = primary.node.consensus.cluster
    last = replace(state.reigns[-1], node_id=2)
    primary.node.consensus.cluster = replace(state, reigns=(state.reigns[0], last))
    await primary.syncing.turn()
    assert primary.node.server.told == SyncConf(blocking=True)
    assert primary.syncing.seen() is None
    asynchronous = replace(primary.node.consensus.cluster, sync=SyncRecord())
    primary.node.consensus.cluster = asynchronous
    await primary.syncing.turn()
    assert primary.node.server.told == SyncConf()


@virtual
async def test_without_the_extension_nobody_is_promoted_under_a_set(tmp_path: Path) -> None:
    primary = Primary(tmp_path, granted(any_of(1, 2)), loads=False)
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await primary.node.until(lambda: bool(primary.node.consensus.released))
        assert not primary.node.server.primary
        reason = primary.node.consensus.released[0][1].reason
        assert reason == "without the extension its synchronous set cannot be proven"
        assert "extension" in primary.waits()


@virtual
async def test_a_server_that_does_not_answer_is_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    primary = Primary(tmp_path, granted(any_of(1, 2)))
    primary.show(flushed={2: 2000})
    errors = [PostgresError("the database system is starting up")] * 3
    primary.node.server.fail("sync_facts", *errors)
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await primary.node.until(lambda: acknowledges(primary.node.server))
    assert len(events_of(caplog, "sync_waits")) == 1


@virtual
async def test_a_look_that_fails_later_does_not_say_that_the_set_is_unproven(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ramd")
    primary = Primary(tmp_path, granted(any_of(1, 2)))
    primary.show(flushed={2: 2000})
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await primary.node.until(lambda: acknowledges(primary.node.server))
        primary.node.server.fail("sync_facts", PostgresError("no answer"))
        await primary.node.until(lambda: bool(events_of(caplog, "sync_stands")))
    assert events_of(caplog, "sync_waits") == []


def events_of(caplog: pytest.LogCaptureFixture, name: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if getattr(record, "event", "") == name]


@virtual
async def test_a_daemon_that_comes_back_tells_its_server_nothing_before_it_has_read_the_record(
    tmp_path: Path,
) -> None:
    """The set that it remembers may be older than the one the server goes by."""
    primary = Primary(tmp_path, SyncRecord(generation=7, rules=(any_of(1, 2, 3),)))
    primary.show(flushed={2: 2000, 3: 2000})
    primary.node.consensus.unread = True
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await elapse(1.5)
        assert primary.node.server.told is None
        assert "was not read yet" in primary.waits()
        assert primary.fence.published == []
        primary.node.consensus.unread = False
        await primary.node.until(lambda: acknowledges(primary.node.server))


@virtual
async def test_names_that_somebody_put_over_ours_prove_nothing(tmp_path: Path) -> None:
    primary = Primary(tmp_path, granted(any_of(1, 2)))
    primary.show(flushed={2: 5000})
    streams = primary.node.server.streams
    primary.node.server.streams = replace(streams, as_told=False)
    primary.counted = {2}
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await elapse(ENOUGH_S)
        assert primary.waits() == "the server goes by other names than it was told"


@virtual
async def test_why_nobody_is_waited_for_is_said(tmp_path: Path) -> None:
    primary = Primary(tmp_path, SyncRecord())
    primary.show(flushed={2: 2000})
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await elapse(ENOUGH_S)
        seen = primary.syncing.seen()
        assert seen is not None
        assert seen.waits_for == "waiting for the other replicas"


@virtual
async def test_which_replicas_keep_every_commit_waiting_is_said(tmp_path: Path) -> None:
    """The set is proven, is kept because that is enforced, and nobody is there to confirm."""
    primary = Primary(tmp_path, granted(any_of(1, 2, 3)))
    state = primary.node.consensus.cluster
    enforced = replace(state.settings, enforce_sync_standbys=True)
    primary.node.consensus.cluster = replace(state, settings=enforced)
    primary.show(flushed={2: 2000, 3: 2000})

    def said() -> str:
        seen = primary.syncing.seen()
        return "" if seen is None else seen.waits_for

    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await primary.node.until(lambda: acknowledges(primary.node.server))
        await elapse(2.0)
        assert said() == ""
        primary.show(flushed={})
        await primary.node.until(lambda: "do not stream" in said())
        assert said() == "commits wait for any 1 of node 2, 3: node 2, 3 do not stream"
        primary.show(flushed={3: 2000})
        await primary.node.until(lambda: said() == "")
