"""Whether two members may speak: the comparison that both sides of a hello make. Pure.

Lives here: `judge`, and what a member knows about who belongs to the group (`Roster`). Must not
live here: messages, proofs, sockets. Start reading at `judge`.

Before a group has started, its members are compared by the list they were configured with. From
then on by the group's id and by who is a member: the membership changes, a founding list does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pgraft.core.types import Index, NodeId, PeerRecord, Term
from pgraft.identity import Identity, JoinRequest, Stage
from pgraft.net.hello import MAGIC, PROTOCOL, Hello, Refuse


@dataclass(frozen=True, slots=True)
class Roster:
    """Who belongs to the group, as far as this member knows; it may lag behind the group.

    `newest` is the highest index that admitted one of them. `removed` holds uuids.
    """

    peers: Mapping[NodeId, PeerRecord]
    removed: frozenset[str]
    newest: Index

    @staticmethod
    def of(peers: Iterable[PeerRecord], removed: Iterable[str] = ()) -> Roster:
        """The roster of these members."""
        by_node = {peer.node: peer for peer in peers}
        newest = max((peer.since for peer in by_node.values()), default=Index(0))
        return Roster(peers=by_node, removed=frozenset(removed), newest=newest)

    @staticmethod
    def recorded(identity: Identity) -> Roster:
        """What the record of this member says; nobody while it is blank."""
        return Roster.of(() if identity.record is None else identity.record.peers())

    def names(self, theirs: Hello) -> bool:
        """Whether it is this very member that the roster means by the node id."""
        known = self.peers.get(theirs.node)
        return known is not None and known.uuid == theirs.uuid

    def text(self) -> str:
        """The members for people, as `list_text` writes them."""
        return " ".join(f"{n}@{peer.address}" for n, peer in sorted(self.peers.items()))

    def fault(self, theirs: Hello) -> Refuse | None:
        """Why a member of the same group that presents itself so is none. None: it is one.

        Of two records of one node id the later is the true one: a wiped or replaced member was
        admitted again, and who holds the earlier one was removed or has not heard of it yet.
        """
        known = self.peers.get(theirs.node)
        if known is None and theirs.since <= self.newest:
            return Refuse(
                code="unknown_member",
                text=f"node {theirs.node} is not a member here; known: {self.text()}",
            )
        if known is None or known.uuid == theirs.uuid or theirs.since > known.since:
            return None
        return Refuse(
            code="member_uuid",
            text=f"node {theirs.node} is known here as member {known.uuid}, this is {theirs.uuid}: "
            "its state was wiped or replaced; add it again",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """A member at the moment of a hello: who it is, whom it knows, what it holds, what it wants."""

    identity: Identity
    roster: Roster
    position: tuple[Term, Index] | None = None
    join: JoinRequest | None = None

    @staticmethod
    def of(identity: Identity) -> Presence:
        """One that knows only its own record."""
        return Presence(identity=identity, roster=Roster.recorded(identity))


def judge(mine: Presence, theirs: Hello) -> Refuse | None:
    """Whether these two may speak, by everything but the secret. None means they may.

    Both sides ask it, each about the other. A blank member and one that belongs to a formed group
    may not, unless the blank one asks to join: whatever it promised before is lost, so it must be
    admitted as a new member. See `standing` for what only a proven peer is told.
    """
    identity = mine.identity
    refuse = _judge_kind(identity, theirs)
    if refuse is not None:
        return refuse
    if theirs.join is not None:
        return _judge_asker(identity, theirs, theirs.join)
    if mine.join is not None:
        return _judge_seed(identity, theirs)
    return _judge_self(identity, theirs) or _judge_group(mine, theirs) or _judge_peer(mine, theirs)


def standing(mine: Presence, theirs: Hello) -> Refuse | None:
    """What a proven peer is told although it belonged here once: it was removed."""
    if theirs.uuid not in mine.roster.removed:
        return None
    return Refuse(
        code="removed",
        text=f"node {theirs.node} (member {theirs.uuid}) was removed from cluster "
        f"'{mine.identity.cluster_name}': to bring it back, move its state directory aside and add "
        "it again",
    )


def _judge_kind(mine: Identity, theirs: Hello) -> Refuse | None:
    if theirs.magic != MAGIC or theirs.protocol != PROTOCOL:
        return Refuse(
            code="protocol",
            text=f"protocol version {theirs.protocol} of node {theirs.node} meets {PROTOCOL} of "
            f"node {mine.node}: run the same version of the daemon on both",
        )
    if theirs.cluster_name != mine.cluster_name:
        return Refuse(
            code="cluster_name",
            text=f"cluster '{theirs.cluster_name}' meets cluster '{mine.cluster_name}'",
        )
    if theirs.uuid == mine.uuid:
        return Refuse(
            code="self_connection",
            text=f"node {mine.node} reached itself: an address in the member list is wrong",
        )
    return None


def _judge_self(mine: Identity, theirs: Hello) -> Refuse | None:
    if theirs.node == mine.node:
        return Refuse(
            code="duplicate_node",
            text=f"two nodes call themselves node {mine.node} (members {mine.uuid}, {theirs.uuid})",
        )
    if mine.stage is Stage.BLANK and theirs.node not in mine.known_nodes():
        return Refuse(
            code="unknown_member",
            text=f"node {theirs.node} is not a member here; known: {mine.list_text}",
        )
    if theirs.target not in (mine.node, 0):
        return Refuse(
            code="wrong_target",
            text=f"node {theirs.target} was dialed, node {mine.node} answered: "
            "an address in the member list is wrong",
        )
    return None


def _judge_group(presence: Presence, theirs: Hello) -> Refuse | None:
    mine = presence.identity
    stages = {mine.stage, theirs.stage}
    if stages == {Stage.BLANK, Stage.STARTED}:
        blank = theirs.node if theirs.stage is Stage.BLANK else mine.node
        return Refuse(
            code="formed_group",
            text=f"formed group, add it again: node {blank} is blank, "
            f"but cluster '{mine.cluster_name}' has already been formed with a node {blank}",
        )
    if Stage.STARTED not in stages and theirs.list_digest != mine.list_digest:
        return Refuse(
            code="member_list",
            text=f"member lists differ: node {theirs.node} has '{theirs.list_text}', "
            f"node {mine.node} has '{mine.list_text}'",
        )
    # A member of the group that this one was before it went on alone is told so once it is proven.
    former = theirs.uuid in presence.roster.removed
    if Stage.BLANK not in stages and theirs.cluster_id != mine.cluster_id and not former:
        return Refuse(
            code="cluster_id",
            text=f"cluster id {theirs.cluster_id} meets {mine.cluster_id}: two groups of one name",
        )
    return None


def _judge_peer(mine: Presence, theirs: Hello) -> Refuse | None:
    if mine.identity.stage is Stage.BLANK or theirs.uuid in mine.roster.removed:
        return None  # there is no roster yet; a removed one is told so once it is proven
    return mine.roster.fault(theirs)


def _judge_asker(mine: Identity, theirs: Hello, request: JoinRequest) -> Refuse | None:
    """What is wrong with one that asks to join, before its host is asked."""
    own = (theirs.node, theirs.uuid)
    if theirs.stage is not Stage.BLANK or (request.node, request.uuid) != own:
        return Refuse(
            code="join", text=f"node {theirs.node} at stage {theirs.stage} cannot ask to join"
        )
    if mine.stage is not Stage.STARTED:
        return Refuse(
            code="not_formed", text=f"node {mine.node} does not belong to a formed group yet"
        )
    if theirs.node == mine.node:
        return _used_id(mine.node)
    return None


def _judge_seed(mine: Identity, theirs: Hello) -> Refuse | None:
    """What is wrong with the one that this member asks to join by."""
    if theirs.stage is not Stage.STARTED:
        return Refuse(
            code="not_formed", text=f"node {theirs.node} does not belong to a formed group yet"
        )
    if theirs.node == mine.node:
        return _used_id(mine.node)
    return None


def _used_id(node: NodeId) -> Refuse:
    return Refuse(
        code="used_id", text=f"node id {node} is taken: give this node another one, then add it"
    )
