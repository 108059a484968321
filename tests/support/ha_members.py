"""Members that come and go in a simulated cluster: by the real steward, token and rules.

Lives here: how a blank host becomes a member, what people order. Must not live here: rules of
membership. Start reading at `invite` and `Joiner.ask`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgraft.core.types import Change, Config, Index, NodeId, PeerRecord, ProposalRefused
from ramd.domain.model import Invitation, Member
from ramd.domain.observation import DataKind
from ramd.execute.local import LocalRecord, Unproven
from ramd.members import token
from ramd.state.member_commands import InviteMember, RemoveMember
from tests.support.ha_group import GroupDisk, GroupNode
from tests.support.ha_people import order
from tests.support.ha_time import Actor

if TYPE_CHECKING:
    from tests.support.ha_host import Host
    from tests.support.ha_world import World

SECRET = b"s" * 32
ASK_S = 0.3
INVITATION_MS = 60_000


def peer(host: Host) -> PeerRecord:
    """How the group knows this host: by its state directory."""
    return PeerRecord(
        node=NodeId(host.node_id),
        uuid=host.uuid,
        address=f"host{host.node_id}:7400",
        since=Index(host.since),
    )


def founding(hosts: Iterable[Host]) -> Config:
    """What the group begins with."""
    peers = tuple(peer(host) for host in hosts)
    return Config(voters=frozenset(peer.node for peer in peers), peers=peers)


def unix_ms() -> int:
    """The wall clock, of all hosts."""
    return round(asyncio.get_running_loop().time() * 1_000)


def remove(world: World, node_id: int) -> None:
    """A person wants this node out."""
    order(world, RemoveMember(node_id=node_id, requested_by="story", at_unix_ms=unix_ms()))


def invite(world: World, node_id: int, *, replaces: int | None = None) -> None:
    """A person adds a node, which asks until it is admitted. One that was a member before begins
    with blank state, beside the data that it had."""
    host = world.host(node_id)
    host.power_off()
    host.lost = False
    host.raft, host.uuid = GroupDisk(), world.new_tie()
    found = Unproven.NO if host.disk.kind is DataKind.ABSENT else Unproven.FOUND
    host.record, host.reported = LocalRecord(unproven=found), None
    now_ms = unix_ms()
    invitation = Invitation(
        member=member(node_id),
        nonce=world.new_tie(),
        expires_unix_ms=now_ms + INVITATION_MS,
        replaces=replaces,
        requested_by="story",
    )
    order(world, InviteMember(invitation=invitation, at_unix_ms=now_ms))
    text = token.make(SECRET, world.state().cluster_id, invitation)
    host.joining = Joiner(host, text)
    host.joining.actor.call(host.joining.ask)


def member(node_id: int, *, nofailover: bool = False) -> Member:
    """As its file names it."""
    return Member(
        node_id=node_id,
        name=f"node{node_id}",
        hostname=f"host{node_id}",
        postgresql_port=5432,
        raft_port=7400,
        http_port=8008,
        nofailover=nofailover,
    )


@dataclass(eq=False)
class Joiner:
    """A blank daemon that asks to be let in."""

    host: Host
    token: str

    def __post_init__(self) -> None:
        self.actor = Actor(f"joiner {self.host.node_id}")

    def ask(self) -> None:
        """One try; a refusal is asked about again: its reason may go away with the coordinator."""
        host, world = self.host, self.host.world
        admitted = self._admitted()
        if admitted is not None:
            host.since, host.joining = int(admitted.since), None
            world.boot(host.node_id)
            self.actor.kill()
            return
        to = world.coordinator()
        if to is not None and to.daemon is not None:
            node = to.daemon.node
            world.network.send(host.node_id, to.node_id, node.actor, lambda: self._judged(node))
        self.actor.later(ASK_S, self.ask)

    def _admitted(self) -> PeerRecord | None:
        """What a member that it reaches says of it."""
        host, world = self.host, self.host.world
        for other in world.hosts.values():
            if other.daemon is None or not world.network.passes(other.node_id, host.node_id):
                continue
            for record in other.daemon.node.raft.status().committed_config.peers:
                if record.uuid == host.uuid:
                    return record
        return None

    def _judged(self, node: GroupNode) -> None:
        """On the member that was asked; as `pgraft.node.admission`."""
        status, record = node.raft.status(), peer(self.host)
        if any(known.uuid == record.uuid for known in status.config.peers):
            return
        daemon = self.host.world.hosts[int(node.node)].daemon
        assert daemon is not None
        refusal = token.refusal(
            self.token,
            node_id=self.host.node_id,
            address=record.address,
            state=daemon.state,
            secret=SECRET,
            now_unix_ms=unix_ms(),
        )
        if refusal:
            return
        try:
            node.raft.change(Change(add_learners=(record,)), node.clock())
        except ProposalRefused:
            return
        finally:
            node.pump()
