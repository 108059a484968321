"""Whoever still counts stays connected, and whoever was removed for a moment longer."""

import random
from collections.abc import Sequence

import pytest

from pgraft.core.types import Config, Index, NodeId, PeerRecord
from pgraft.identity import Founder, Identity
from pgraft.net.memory import MemoryNetwork, MemoryTransport
from pgraft.node import peers as peers_module
from pgraft.node.peers import Peers
from tests.support.wait import wait_for_async


def peer(node: int, uuid: str = "", since: int = 0) -> PeerRecord:
    return PeerRecord(
        node=NodeId(node), uuid=uuid or f"{node:032x}", address=f"h:{node}", since=Index(since)
    )


def config(*members: PeerRecord, removed: tuple[str, ...] = ()) -> Config:
    voters = frozenset(member.node for member in members)
    return Config(voters=voters, peers=members, removed=removed)


class Told(MemoryTransport):
    """A transport that remembers what it was told."""

    def __init__(self) -> None:
        founders = (Founder(node=NodeId(1), address="h:1"),)
        identity = Identity(node=NodeId(1), uuid="a" * 32, cluster_name="t", founders=founders)
        super().__init__(MemoryNetwork(random.Random(0)), identity)
        self.peers: set[PeerRecord] = set()
        self.removed: tuple[str, ...] = ()

    def set_peers(self, peers: Sequence[PeerRecord], removed: Sequence[str]) -> None:
        assert len({p.node for p in peers}) == len(peers)
        self.peers, self.removed = set(peers), tuple(removed)


class Bench:
    def __init__(self) -> None:
        self.transport = Told()
        self.now = (Config(voters=frozenset({NodeId(1)})),) * 2
        self.peers = Peers(self.transport, lambda: self.now)

    def tell(self, effective: Config, committed: Config) -> None:
        self.now = (effective, committed)
        self.peers.tell()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(peers_module, "GRACE_S", 0.05)
    return Bench()


ALL = config(peer(1), peer(2), peer(3))


async def test_a_group_known_by_ids_only_tells_nothing(bench: Bench) -> None:
    bench.peers.tell()
    assert bench.transport.peers == set()


async def test_who_is_left_out_counts_until_that_is_committed(bench: Bench) -> None:
    bench.tell(ALL, ALL)
    without = config(peer(1), peer(2), removed=(peer(3).uuid,))
    bench.tell(without, ALL)
    peers = bench.peers
    peers._part()  # however long the commit takes
    assert bench.transport.peers == set(ALL.peers)
    assert not bench.transport.removed
    bench.tell(without, without)
    assert bench.transport.peers == set(ALL.peers), "it should hear of it"
    assert not bench.transport.removed
    await wait_for_async(
        lambda: bench.transport.removed == (peer(3).uuid,), 10, "the moment is over"
    )
    assert bench.transport.peers == set(without.peers)


async def test_a_new_member_is_connected_before_it_is_committed(bench: Bench) -> None:
    bench.tell(ALL, ALL)
    bench.tell(config(*ALL.peers, peer(4, since=7)), ALL)
    assert peer(4, since=7) in bench.transport.peers


async def test_a_successor_with_the_same_id_takes_the_place_at_once(bench: Bench) -> None:
    bench.tell(ALL, ALL)
    successor = peer(3, "f" * 32, since=9)
    replaced = config(peer(1), peer(2), successor, removed=(peer(3).uuid,))
    bench.tell(replaced, replaced)
    assert bench.transport.peers == set(replaced.peers)
    assert bench.transport.removed == (peer(3).uuid,)
    bench.peers.stop()
