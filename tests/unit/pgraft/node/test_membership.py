"""Members come and go while the group works: admitted, promoted, removed, the leader too."""

import asyncio
import random
from pathlib import Path

import pytest

from pgraft.core.types import NO_NODE, Change, Config, NodeId, PeerRecord, ProposalRefused, Role
from pgraft.identity import JoinAnswer, JoinRequest, JoinState
from pgraft.joining import JoinRefused
from pgraft.net.memory import MemoryNetwork
from pgraft.node import ProposalUnknown, SnapshotOptions
from tests.support.pgraft_cluster import DEADLINE_S, Cluster, Member
from tests.support.wait import wait_for_async

OFTEN = SnapshotOptions(entries=40)
FOUR = NodeId(4)


def admit(request: JoinRequest) -> str:
    return "" if request.token == b"token" else "bad_token: this invitation is not known"


def cluster_of(
    directory: Path, over: str, size: int = 3, snapshots: SnapshotOptions | None = OFTEN
) -> Cluster:
    network = MemoryNetwork(random.Random(1)) if over == "memory" else None
    cluster = Cluster(directory, size, network=network, snapshots=snapshots)
    for settings in cluster.settings.values():
        settings.admit = admit
    return cluster


def config_of(member: Member) -> Config:
    return member.node.status().committed_config


async def promoted(member: Member, node: NodeId) -> Config:
    """Promote a learner as soon as the leader finds that it has caught up."""

    async def done() -> Config | None:
        try:
            return await member.node.change(Change(promote=frozenset({node})), DEADLINE_S)
        except ProposalRefused as refused:
            if refused.reason != "learner_behind":
                raise
            return None

    found = await wait_for_async(done, DEADLINE_S, "the learner has caught up")
    assert found is not None
    return found


async def loaded(member: Member, stop: asyncio.Event) -> int:
    """Propose until told to stop; returns how many."""
    number = 0
    while not stop.is_set():
        await member.node.propose(b"load %d" % number, DEADLINE_S)
        number += 1
    return number


@pytest.mark.parametrize("over", ["tcp", "memory"])
async def test_a_node_joins_with_an_empty_disk_is_promoted_and_removed_under_load(
    tmp_path: Path, over: str
) -> None:
    async with cluster_of(tmp_path, over) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        for number in range(150):
            await leader.node.propose(b"%d" % number, DEADLINE_S)
        await wait_for_async(
            lambda: leader.node.status().snapshot_index > 50, DEADLINE_S, "the log is shortened"
        )
        term = leader.node.status().term
        stop = asyncio.Event()
        load = asyncio.create_task(loaded(leader, stop))
        fourth = await cluster.invite(4)
        await cluster.formed()
        assert config_of(leader).learners == {FOUR}
        config = await promoted(leader, FOUR)
        assert config.voters == {1, 2, 3, 4}
        assert not config.learners
        removed = next(n for n in (1, 2, 3) if n != leader.settings.node)
        config = await leader.node.change(Change(remove=frozenset({NodeId(removed)})), DEADLINE_S)
        assert removed not in config.voters
        stop.set()
        assert await load > 0
        await cluster.stop(removed)
        await wait_for_async(
            lambda: fourth.commands == leader.commands, DEADLINE_S, "the new one has everything"
        )
        assert fourth.node.status().snapshots_installed >= 1
        assert leader.node.status().term == term, "nobody had to be elected"
        # The new one counts: with it, two of three are enough; its restart is like any other's.
        third = next(n for n in cluster.members if n not in (4, leader.settings.node))
        await cluster.stop(third)
        await cluster.stop(4)
        again = await cluster.start(4)
        await cluster.formed()
        await leader.node.propose(b"two of three", DEADLINE_S)
        await cluster.applied(leader.commands)
        assert again.configs[-1].voters == leader.configs[-1].voters


@pytest.mark.parametrize("over", ["tcp", "memory"])
async def test_a_leader_that_removes_itself_hands_over_and_the_rest_goes_on(
    tmp_path: Path, over: str
) -> None:
    async with cluster_of(tmp_path, over) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        me = leader.settings.node
        config = await leader.node.change(Change(remove=frozenset({me})), DEADLINE_S)
        assert me not in config.voters
        rest = set(cluster.members) - {me}
        successor = await cluster.leader(rest)
        await successor.node.propose(b"without it", DEADLINE_S)
        await cluster.applied([b"without it"], rest)
        assert leader.node.status().role is not Role.LEADER
        for member in (cluster.members[node] for node in rest):
            assert member.node.status().config.voters == rest


async def test_any_member_may_be_asked_for_a_change(tmp_path: Path) -> None:
    async with cluster_of(tmp_path, "tcp") as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        follower = next(m for m in cluster.members.values() if m is not leader)
        me = follower.settings.node
        config = await follower.node.change(Change(demote=frozenset({me})), DEADLINE_S)
        assert config.learners == {me}
        # It is removed on its own wish, and is told although it hears nothing of the group later.
        config = await follower.node.change(Change(remove=frozenset({me})), DEADLINE_S)
        assert me not in config.learners
        with pytest.raises(ProposalRefused) as refused:
            await leader.node.change(Change(remove=frozenset({me})), DEADLINE_S)
        assert refused.value.reason == "unknown_member"


async def test_a_change_without_a_quorum_is_unknown_and_one_without_a_leader_refused(
    tmp_path: Path,
) -> None:
    async with cluster_of(tmp_path, "memory") as cluster:
        network = cluster.network
        assert network is not None
        await cluster.start_all()
        leader = await cluster.leader()
        await leader.node.propose(b"ready", DEADLINE_S)
        network.isolate(leader.settings.node)
        gone = frozenset(set(cluster.members) - {leader.settings.node})
        with pytest.raises(ProposalUnknown):
            await leader.node.change(Change(remove=gone), 0.2)
        await wait_for_async(
            lambda: leader.node.leader() == NO_NODE, DEADLINE_S, "it gives up leading"
        )
        with pytest.raises(ProposalRefused) as refused:
            await leader.node.change(Change(remove=gone), 0.2)
        assert refused.value.reason == "no_leader"


@pytest.mark.parametrize("over", ["tcp", "memory"])
async def test_a_node_that_the_host_does_not_want_is_refused_with_its_words(
    tmp_path: Path, over: str
) -> None:
    async with cluster_of(tmp_path, over) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        stranger = await cluster.invite(4, b"made up")
        await wait_for_async(stranger.crashed, DEADLINE_S, "it gives up")
        crashed = stranger.crashed()
        assert isinstance(crashed, JoinRefused)
        assert crashed.code == "bad_token"
        assert "this invitation is not known" in str(crashed)
        assert leader.node.status().config.learners == frozenset()
        await cluster.stop(4)


async def test_a_node_id_that_is_taken_is_refused(tmp_path: Path) -> None:
    async with cluster_of(tmp_path, "memory") as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        await wait_for_async(lambda: leader.commands == [], DEADLINE_S, "it leads")
        join = leader.channel.listeners.join
        assert join is not None
        await leader.node.propose(b"ready", DEADLINE_S)
        taken = JoinRequest(node=NodeId(2), uuid="f" * 32, address="h:9", token=b"token")
        answer = join(taken)
        assert (answer.state, answer.code) == (JoinState.REFUSED, "used_id")


async def test_requests_reach_the_leader_by_any_member_and_answers_come_back(
    tmp_path: Path,
) -> None:
    async with cluster_of(tmp_path, "memory") as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        await leader.node.propose(b"ready", DEADLINE_S)
        follower = next(m for m in cluster.members.values() if m is not leader)
        join = follower.channel.listeners.join
        assert join is not None

        async def decided(request: JoinRequest) -> JoinAnswer:
            def answer() -> JoinAnswer | None:
                answer = join(request)
                return None if answer.state is JoinState.PENDING else answer

            found = await wait_for_async(answer, DEADLINE_S, "it is decided")
            assert found is not None
            return found

        bad = JoinRequest(node=NodeId(8), uuid="e" * 32, address="h:8", token=b"no")
        assert (await decided(bad)).code == "bad_token"
        good = JoinRequest(node=NodeId(9), uuid="f" * 32, address="h:9", token=b"token")
        for _ in range(2):  # and again as often as it asks
            answer = await decided(good)
            assert answer.record is not None
            assert answer.record.uuid_of(NodeId(9)) == "f" * 32
            own = next(m for m in answer.record.members if m.node == 9)
            assert own.since > 0
            assert not own.voter
        # A flood of others is bounded, and hears to ask again.
        for number in range(100):
            flood = JoinRequest(node=NodeId(20 + number), uuid="d" * 32, address="h:1", token=b"x")
            assert join(flood).state is JoinState.PENDING
        removed = await leader.node.change(Change(remove=frozenset({NodeId(9)})), DEADLINE_S)
        assert "f" * 32 in removed.removed
        await wait_for_async(
            lambda: "f" * 32 in config_of(follower).removed, DEADLINE_S, "the follower knows"
        )
        assert (await decided(good)).code == "removed"


async def test_a_group_without_the_hook_admits_nobody(tmp_path: Path) -> None:
    cluster = cluster_of(tmp_path, "memory", size=1)
    cluster.settings[NodeId(1)].admit = None
    async with cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        join = leader.channel.listeners.join
        assert join is not None
        answer = join(JoinRequest(node=FOUR, uuid="f" * 32, address="h:9", token=b""))
        assert answer.code == "closed"
        await leader.node.stop()
        assert leader.channel.listeners.join is None


async def test_the_host_hears_of_every_configuration_once(tmp_path: Path) -> None:
    async with cluster_of(tmp_path, "memory", size=1) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        await leader.node.propose(b"ready", DEADLINE_S)
        peer = PeerRecord(node=NodeId(2), uuid="b" * 32, address="h:2")
        await leader.node.change(Change(add_learners=(peer,)), DEADLINE_S)
        assert [config.learners for config in leader.configs] == [frozenset(), {2}]
        assert leader.configs[1].peers[1].since > 0
