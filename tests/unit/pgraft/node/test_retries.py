"""A command whose outcome was lost is asked again and applied once, or honestly unknown."""

import asyncio
import random
from pathlib import Path

import pytest

from pgraft.core.limits import SESSION_OPEN_MAX
from pgraft.core.types import (
    NO_NODE,
    Config,
    Entry,
    EntryKind,
    Index,
    NodeId,
    Origin,
    ProposalRefused,
    Session,
    Snapshot,
    Term,
)
from pgraft.net.memory import MemoryNetwork
from pgraft.node import ProposalUnknown
from pgraft.node.origins import SPAN_MAX, Origins
from pgraft.node.waiting import WAITING_MAX, TooMany, Waiting
from tests.support.pgraft_cluster import DEADLINE_S, Cluster, Member
from tests.support.wait import wait_for_async


def others(cluster: Cluster, member: Member) -> list[Member]:
    return [m for m in cluster.members.values() if m is not member]


async def test_a_lost_answer_is_asked_for_again_and_the_command_applied_once(
    tmp_path: Path,
) -> None:
    """The leader commits the command and is lost before the asker hears anything."""
    network = MemoryNetwork(random.Random(1))
    async with Cluster(tmp_path, 3, network=network) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        asker, third = others(cluster, leader)
        network.cut(leader.settings.node, asker.settings.node)
        asked = asyncio.create_task(asker.node.propose(b"once", DEADLINE_S))
        await wait_for_async(
            lambda: b"once" in leader.commands and third.node.status().last_index >= 2,
            DEADLINE_S,
            "it is committed without the asker",
        )
        await cluster.stop(leader.settings.node)
        network.heal()
        await asked
        await cluster.leader()
        await asker.node.propose(b"then", DEADLINE_S)
        await cluster.applied([b"once", b"then"])


async def test_a_command_in_a_minority_is_asked_of_the_new_leader(tmp_path: Path) -> None:
    network = MemoryNetwork(random.Random(1))
    async with Cluster(tmp_path, 3, network=network) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        network.isolate(leader.settings.node)
        asked = asyncio.create_task(leader.node.propose(b"kept", DEADLINE_S))
        rest = {m.settings.node for m in others(cluster, leader)}
        successor = await cluster.leader(rest)
        await successor.node.propose(b"meanwhile", DEADLINE_S)
        network.heal()
        await asked
        await cluster.leader()
        await cluster.applied([b"meanwhile", b"kept"])


async def test_through_a_storm_of_changes_every_command_counts_once(tmp_path: Path) -> None:
    network = MemoryNetwork(random.Random(3), drop=0.05, delay_s=(0.0, 0.01))
    async with Cluster(tmp_path, 3, network=network) as cluster:
        await cluster.start_all()
        wanted = [b"%d" % number for number in range(36)]

        async def ask(number: int) -> None:
            member = cluster.members[NodeId(number % 3 + 1)]
            await member.node.propose(wanted[number], DEADLINE_S)

        async def ask_all() -> None:
            for first in range(0, 36, 12):
                await asyncio.gather(*(ask(n) for n in range(first, first + 12)))

        asking = asyncio.create_task(ask_all())
        while not asking.done():
            leader = await cluster.leader()
            network.isolate(leader.settings.node)
            await wait_for_async(
                lambda: asking.done() or leader.node.leader() == NO_NODE,  # noqa: B023
                DEADLINE_S,
                "the leader gives up",
            )
            network.heal()
        await asking
        network.drop = 0
        leader = await cluster.leader()
        await leader.node.read_barrier(DEADLINE_S)  # one just elected has not applied it all yet
        assert sorted(leader.commands) == sorted(wanted)
        await cluster.applied(leader.commands)


async def test_without_an_outcome_the_deadline_ends_it_as_unknown(tmp_path: Path) -> None:
    network = MemoryNetwork(random.Random(1))
    async with Cluster(tmp_path, 3, network=network) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        network.isolate(leader.settings.node)
        with pytest.raises(ProposalUnknown):
            await leader.node.propose(b"who knows", 0.3)
        await wait_for_async(
            lambda: leader.node.leader() == NO_NODE, DEADLINE_S, "it gives up leading"
        )
        with pytest.raises(ProposalRefused) as refused:
            await leader.node.propose(b"certainly not", 0.1)
        assert refused.value.reason == "no_leader"


async def test_garbage_and_too_much_from_peers_is_refused(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 1) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        for method in ("pgraft.command", "pgraft.change", "pgraft.admit"):
            with pytest.raises(Exception, match=r"no .*: ") as refused:
                await leader.channel.call(NodeId(1), method, b"\xc1", DEADLINE_S)
            assert getattr(refused.value, "code", "") == "garbage"


def test_a_floor_never_passes_a_command_that_is_open() -> None:
    origins = Origins()
    first = origins.open()
    second, third = origins.open(), origins.open()
    assert [o.serial for o in (first, second, third)] == [1, 2, 3]
    assert third.floor == 0
    origins.close(second)
    assert origins.open().floor == 0
    origins.close(first)
    assert origins.open().floor == 2


def test_a_session_is_left_before_the_group_would_forget_an_open_command() -> None:
    origins = Origins()
    held = origins.open()
    opened = [origins.open() for _ in range(3 * SESSION_OPEN_MAX)]
    for origin in opened[:10]:
        origins.close(origin)
    spans = [o.serial - held.serial for o in opened if o.session == held.session]
    assert max(spans) == SPAN_MAX < SESSION_OPEN_MAX
    origins.close(held)  # of a session that was left: nothing to do
    assert origins.open().session not in {held.session, 0}


def entry(index: int, origin: Origin, kind: EntryKind = EntryKind.COMMAND) -> Entry:
    return Entry(term=Term(1), index=Index(index), kind=kind, origin=origin)


def at(index: int, sessions: tuple[Session, ...], config: Config | None = None) -> Snapshot:
    config = config or Config(voters=frozenset({NodeId(1)}))
    return Snapshot(index=Index(index), term=Term(1), config=config, sessions=sessions)


async def test_an_origin_is_done_by_its_entry_by_its_repetition_or_by_a_snapshot() -> None:
    waiting = Waiting()
    one, two, three, four = (waiting.origin(7, serial) for serial in (1, 2, 3, 4))
    other = waiting.origin(8, 1)
    waiting.on_applied(entry(1, Origin(session=7, serial=1)))
    waiting.on_applied(entry(2, Origin(session=7, serial=2), EntryKind.NOOP))
    assert (one.result(), two.result()) == (1, 2)
    waiting.on_restored(at(9, (Session(session=7, floor=3), Session(session=9, floor=5))))
    assert three.result() == 9
    waiting.on_restored(at(12, (Session(session=7, floor=3, done=(4,)),)))
    assert four.result() == 12
    assert not other.done()
    await waiting.index(Index(12))


async def test_a_configuration_is_settled_when_it_is_not_joint() -> None:
    waiting = Waiting()
    joint = Config(voters=frozenset({NodeId(1)}), outgoing=frozenset({NodeId(2)}))
    plain = Config(voters=frozenset({NodeId(1)}))
    early, late = waiting.settled(Index(3)), waiting.settled(Index(8))
    waiting.on_applied(Entry(term=Term(1), index=Index(3), kind=EntryKind.CONFIG, config=joint))
    assert not early.done()
    waiting.on_applied(Entry(term=Term(1), index=Index(4), kind=EntryKind.CONFIG, config=plain))
    assert early.result() == plain
    assert not late.done()
    assert waiting.settled(Index(4)).result() == plain, "also for one who asks too late"
    waiting.on_restored(at(9, (), joint))
    assert not late.done()
    waiting.on_restored(at(10, (), plain))
    assert late.result() == plain
    left = waiting.settled(Index(11))
    waiting.fail(ProposalUnknown("stopped"))
    with pytest.raises(ProposalUnknown):
        await left


async def test_waiting_callers_are_bounded_and_leave_when_they_give_up() -> None:
    waiting = Waiting()
    futures = [waiting.origin(1, serial) for serial in range(WAITING_MAX)]
    with pytest.raises(TooMany):
        _ = waiting.origin(1, WAITING_MAX)
    futures[0].cancel()
    await asyncio.wait([futures[0]])
    await wait_for_async(lambda: place(waiting), DEADLINE_S, "there is a place again")


def place(waiting: Waiting) -> bool:
    try:
        future = waiting.origin(2, 1)
    except TooMany:
        return False
    return future.cancel()
