"""Whole members: they elect, commit, hand over, and survive kills, restarts and bad networks."""

import asyncio
import gc
import random
from pathlib import Path

import pytest
import uvloop

from pgraft.core.types import Grant, Index, NodeId, ProposalRefused, Role, Timing
from pgraft.net.memory import MemoryNetwork
from pgraft.node import ProposalUnknown, ReadFailed
from pgraft.wire import ENTRY_BYTES_MAX
from tests.support.pgraft_cluster import DEADLINE_S, Cluster, Member
from tests.support.pgraft_disk import CountingDisk
from tests.support.wait import wait_for_async


def memory(drop: float = 0.0, delay_s: tuple[float, float] = (0.0, 0.0)) -> MemoryNetwork:
    return MemoryNetwork(random.Random(1), drop=drop, delay_s=delay_s)


def others(cluster: Cluster, member: Member) -> list[Member]:
    return [m for m in cluster.members.values() if m is not member]


async def test_any_node_proposes_and_every_node_applies_in_one_order(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        await cluster.leader()
        indexes = [
            await member.node.propose(b"%d" % number, DEADLINE_S)
            for number in range(4)
            for member in cluster.members.values()
        ]
        assert indexes == sorted(indexes)
        await cluster.applied([b"%d" % n for n in range(4) for _ in range(3)])


async def test_a_proposal_returns_after_it_was_applied_where_it_was_asked(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3, network=memory(delay_s=(0.0, 0.01))) as cluster:
        await cluster.start_all()
        for member in (await cluster.leader(), *others(cluster, await cluster.leader())):
            await member.node.propose(b"from %d" % member.settings.node, DEADLINE_S)
            assert b"from %d" % member.settings.node in member.commands


def test_members_run_on_uvloop_as_well(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cluster(tmp_path, 3) as cluster:
            await cluster.start_all()
            leader = await cluster.leader()
            await leader.node.propose(b"before", DEADLINE_S)
            await cluster.stop(leader.settings.node)
            successor = await cluster.leader()
            await successor.node.propose(b"after", DEADLINE_S)
            await cluster.applied([b"before", b"after"])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


async def test_what_lives_at_the_start_is_spared_the_collection_of_garbage(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 1) as cluster:
        before = gc.get_freeze_count()
        cluster.settings[NodeId(1)].freezes = True
        try:
            await cluster.start_all()
            assert gc.get_freeze_count() > before
        finally:
            gc.unfreeze()


async def test_a_killed_leader_is_replaced_and_comes_back_from_its_disk(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        await leader.node.propose(b"before", DEADLINE_S)
        await cluster.stop(leader.settings.node)
        successor = await cluster.leader()
        await successor.node.propose(b"meanwhile", DEADLINE_S)
        back = await cluster.start(leader.settings.node)
        await cluster.formed()
        await cluster.applied([b"before", b"meanwhile"])
        assert back.node.leader() == (await cluster.leader()).settings.node


async def test_members_count_what_they_have_done(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3, network=memory()) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        first = leader.node.status()
        assert 1 <= first.elections_begun <= first.term, "at most one in each term"
        await wait_for_async(
            lambda: all(m.node.status().messages_taken >= 5 for m in cluster.members.values()),
            DEADLINE_S,
            "beats and answers are taken",
        )
        await wait_for_async(
            lambda: leader.node.status().heartbeats_sent > first.heartbeats_sent,
            DEADLINE_S,
            "the leader goes on beating",
        )
        for status in [m.node.status() for m in cluster.members.values()]:
            assert status.elections_begun or not status.heartbeats_sent, "only who led has beaten"
        await cluster.stop(leader.settings.node)
        before = {m.settings.node: m.node.status() for m in cluster.members.values()}
        successor = await cluster.leader()
        earlier = before[successor.settings.node]
        assert successor.node.status().elections_begun > earlier.elections_begun
        await wait_for_async(
            lambda: successor.node.status().heartbeats_sent > earlier.heartbeats_sent,
            DEADLINE_S,
            "the successor beats",
        )


async def test_a_lost_connection_to_the_leader_starts_the_election_at_once(tmp_path: Path) -> None:
    slow = Timing(
        heartbeat_ns=1_000_000_000, election_ns=60_000_000_000, lease_ttl_ns=400_000_000_000
    )
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        for number in list(cluster.members):
            await cluster.stop(number)
            cluster.settings[number].timing = slow
        # Nobody but node 1 campaigns by silence within this test.
        cluster.settings[NodeId(1)].timing = Timing()
        await cluster.start_all()
        leader = await cluster.leader()
        assert leader.settings.node == 1
        term = leader.node.status().term
        await cluster.stop(1)
        # Two that campaign at once may split the vote; that they do not wait is what matters.
        await wait_for_async(
            lambda: any(
                m.node.status().role is not Role.FOLLOWER or m.node.status().term > term
                for m in cluster.members.values()
            ),
            DEADLINE_S,
            "somebody campaigns long before the election timeout",
        )


async def test_all_members_restart_with_what_was_committed(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        commands = [b"%d" % n for n in range(30)]
        for command in commands:
            await leader.node.propose(command, DEADLINE_S)
        terms = [m.node.status().term for m in cluster.members.values()]
        for number in (1, 2, 3):
            await cluster.stop(number)
        await cluster.start_all()
        await cluster.leader()
        await cluster.applied(commands)
        assert min(m.node.status().term for m in cluster.members.values()) > max(terms)


async def test_many_proposals_at_once_share_few_syncs(tmp_path: Path) -> None:
    syncs = [0]

    async with Cluster(tmp_path, 1) as cluster:
        cluster.settings[NodeId(1)].wrap_disk = lambda disk: CountingDisk(disk, syncs)
        await cluster.start_all()
        leader = await cluster.leader()
        before = syncs[0]
        indexes = await asyncio.gather(
            *(leader.node.propose(b"%d" % n, DEADLINE_S) for n in range(100))
        )
        assert len(set(indexes)) == 100
        assert syncs[0] - before <= 20
        assert sorted(leader.commands) == sorted(b"%d" % n for n in range(100))


async def test_without_a_quorum_nothing_is_promised(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3, network=memory()) as cluster:
        assert cluster.network is not None
        await cluster.start_all()
        leader = await cluster.leader()
        cluster.network.isolate(leader.settings.node)
        with pytest.raises(ProposalUnknown, match="not applied in time"):
            await leader.node.propose(b"lost or not", 0.1)
        with pytest.raises(ReadFailed):
            await leader.node.read_barrier(0.1)
        await wait_for_async(
            lambda: leader.node.leader() == 0, DEADLINE_S, "it notices that it is alone"
        )
        with pytest.raises(ProposalRefused) as refused:
            await leader.node.propose(b"never sent", 0.2)
        assert refused.value.reason == "no_leader"
        majority = {m.settings.node for m in others(cluster, leader)}
        successor = await cluster.leader(majority)
        await successor.node.propose(b"of the majority", DEADLINE_S)
        cluster.network.heal()
        await cluster.applied([b"of the majority"])


async def test_a_read_barrier_shows_what_was_committed_before_it(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3, network=memory(delay_s=(0.0, 0.02))) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        for number in range(5):
            index = await leader.node.propose(b"%d" % number, DEADLINE_S)
            for member in others(cluster, leader):
                assert await member.node.read_barrier(DEADLINE_S) >= index
                assert member.commands[-1] == b"%d" % number


async def test_a_lossy_network_loses_no_committed_entry(tmp_path: Path) -> None:
    network = memory(drop=0.0, delay_s=(0.0, 0.005))
    async with Cluster(tmp_path, 3, network=network) as cluster:
        await cluster.start_all()
        await cluster.leader()
        network.drop = 0.1
        acknowledged = []
        for number in range(40):
            member = cluster.members[NodeId(number % 3 + 1)]
            try:
                await member.node.propose(b"%d" % number, 1)
            except (ProposalUnknown, ProposalRefused):
                continue
            acknowledged.append(b"%d" % number)
        network.drop = 0.0
        assert len(acknowledged) > 20
        leader = await cluster.leader()
        await leader.node.propose(b"end", DEADLINE_S)
        await cluster.applied(leader.commands)
        assert [c for c in leader.commands if c in acknowledged] == acknowledged


async def test_leadership_is_transferred(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        target = others(cluster, leader)[0]
        with pytest.raises(ProposalRefused):
            target.node.transfer(leader.settings.node)
        leader.node.transfer(target.settings.node)
        await wait_for_async(
            lambda: leader.node.leader() == target.settings.node, DEADLINE_S, "it has moved"
        )
        await leader.node.propose(b"through the new one", DEADLINE_S)


async def test_too_large_a_proposal_is_refused_everywhere_and_the_largest_passes(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        for member in cluster.members.values():
            with pytest.raises(ProposalRefused) as refused:
                await member.node.propose(bytes(ENTRY_BYTES_MAX + 1), DEADLINE_S)
            assert refused.value.reason == "too_large"
        largest = bytes(ENTRY_BYTES_MAX)
        for member in (leader, others(cluster, leader)[0]):
            await member.node.propose(largest, DEADLINE_S)
        await cluster.applied([largest, largest])


async def test_a_lease_is_granted_renewed_and_released(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        holder = others(cluster, leader)[0]
        granter = leader.node.granter
        await wait_for_async(
            lambda: granter.may_move_at() is not None, DEADLINE_S, "the leader can tell"
        )
        grant = Grant(
            holder=holder.settings.node, epoch=1, ttl_ns=1_000_000_000, payload=b"timeline 2"
        )
        index = await leader.node.propose_grant(grant, DEADLINE_S)
        await wait_for_async(lambda: holder.node.holder.epoch == 1, DEADLINE_S, "it is known")
        assert holder.entries[index - 1].grant == grant
        assert holder.node.holder.deadline_ns == 0
        assert holder.node.holder.renew()
        await wait_for_async(
            lambda: holder.node.holder.deadline_ns > 0, DEADLINE_S, "the renewal is confirmed"
        )
        with pytest.raises(ProposalRefused) as running:
            await leader.node.propose_grant(
                Grant(holder=leader.settings.node, epoch=2, ttl_ns=1), DEADLINE_S
            )
        assert running.value.reason == "lease_running"
        assert holder.node.holder.release(b"end of WAL")
        assert holder.node.holder.released_epoch == 1
        await wait_for_async(
            lambda: granter.released(1) == b"end of WAL", DEADLINE_S, "the release arrives"
        )
        assert not leader.node.holder.renew(), "who holds nothing renews nothing"
        await leader.node.propose_grant(
            Grant(holder=leader.settings.node, epoch=2, ttl_ns=1_000_000_000), DEADLINE_S
        )
        assert leader.node.holder.epoch == 2
        granter.seal(2)
        leader.node.holder.renew()
        await leader.node.read_barrier(DEADLINE_S)
        assert leader.node.holder.deadline_ns == 0, "a sealed epoch is not renewed"
        granter.unseal()
        leader.node.holder.renew()
        await wait_for_async(
            lambda: leader.node.holder.deadline_ns > 0, DEADLINE_S, "it is renewed again"
        )


async def test_calls_beside_raft_travel_over_the_same_channel(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 2) as cluster:
        await cluster.start_all()
        one, two = cluster.members[NodeId(1)], cluster.members[NodeId(2)]

        async def answer(sender: NodeId, payload: bytes) -> bytes:
            return payload.upper()

        two.node.channel.register("shout", answer)
        await wait_for_async(
            lambda: one.channel.transport.linked(NodeId(2)), DEADLINE_S, "they are connected"
        )
        assert await one.node.channel.call(NodeId(2), "shout", b"hi", DEADLINE_S) == b"HI"


async def test_an_overwritten_proposal_is_tried_again_and_never_applied_twice(
    tmp_path: Path,
) -> None:
    """A leader that is cut off holds an entry; the others go on; its entry is overwritten."""
    async with Cluster(tmp_path, 3, network=memory()) as cluster:
        assert cluster.network is not None
        await cluster.start_all()
        leader = await cluster.leader()
        cluster.network.isolate(leader.settings.node)
        proposal = asyncio.ensure_future(leader.node.propose(b"stubborn", DEADLINE_S))
        majority = {m.settings.node for m in others(cluster, leader)}
        await wait_for_async(
            lambda: all(
                m.node.leader() not in (0, leader.settings.node) for m in others(cluster, leader)
            ),
            DEADLINE_S,
            "the others have a leader of their own",
        )
        successor = await cluster.leader(majority)
        await successor.node.propose(b"of the majority", DEADLINE_S)
        cluster.network.heal()
        assert await proposal > Index(0)
        await cluster.applied([b"of the majority", b"stubborn"])
