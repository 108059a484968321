"""Membership: questions asked of a configuration, and the only ways from one to the next.

Lives here: pure functions over `Config` and `Change`. Must not live here: counting (see `quorum`),
when a configuration takes effect (see `configs`), who may change it now (see `membership`). Start
reading at `refusal`, then `enter_joint`.

Voters change only through a joint configuration (thesis §4.3): any quorum of it holds a quorum of
the voters before, and one of the voters after. So of two configurations that follow each other,
every quorum of the one meets every quorum of the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pgraft.core.limits import MEMBERS_MAX, REMOVED_MAX, VOTERS_MAX
from pgraft.core.types import Change, Config, Index, NodeId, PeerRecord

NO_CHANGE = Change()


def founding(voters: Iterable[NodeId]) -> Config:
    """The first configuration of a group; ValueError if it has no voter or an id below 1."""
    config = Config(voters=frozenset(voters))
    if not config.voters or min(config.voters) < 1:
        raise ValueError("a group needs at least one voter, and node ids start at 1")
    return config


def all_voters(config: Config) -> frozenset[NodeId]:
    """Everybody whose vote may be needed: of both halves while a joint change runs."""
    return config.voters | config.outgoing


def all_members(config: Config) -> frozenset[NodeId]:
    """Everybody who receives the log: voters of both halves, and learners."""
    return all_voters(config) | config.learners | config.learners_next


def is_voter(config: Config, node: NodeId) -> bool:
    """Whether `node` may campaign and its vote and acks count."""
    return node in config.voters or node in config.outgoing


def is_member(config: Config, node: NodeId) -> bool:
    """Whether `node` gets the log, and its answers mean anything."""
    return is_voter(config, node) or node in config.learners or node in config.learners_next


def is_joint(config: Config) -> bool:
    """Whether a change of voters is half done."""
    return bool(config.outgoing)


def touches_voters(config: Config, change: Change) -> bool:
    """Whether `change` needs a joint configuration."""
    return bool(change.promote or change.demote or change.remove & config.voters)


def refusal(config: Config, change: Change) -> str:
    """Why `change` makes no sense for `config` (which is not joint): one stable word, or ""."""
    if change == NO_CHANGE:
        return "nothing_to_change"
    return (
        _identity_refusal(config, change) or _role_refusal(config, change) or _limit(config, change)
    )


def simple(config: Config, change: Change, at: Index) -> Config:
    """The configuration after a change that touches no voter; `at` is the index of its entry."""
    assert not touches_voters(config, change) and not is_joint(config)
    learners = (config.learners - change.remove) | _added(change)
    return _directory(replace(config, learners=learners), _records(config, change, at))


def enter_joint(config: Config, change: Change, at: Index) -> Config:
    """The joint configuration between `config` and what `change` makes of it.

    Who leaves keeps its record until the joint configuration is left: it is needed until then.
    """
    assert not is_joint(config)
    joint = replace(
        config,
        voters=(config.voters | change.promote) - change.demote - change.remove,
        outgoing=config.voters,
        learners=(config.learners - change.promote - change.remove) | _added(change),
        learners_next=change.demote,
        auto_leave=True,
    )
    return _directory(joint, _records(config, change, at))


def leave_joint(config: Config) -> Config:
    """The configuration that a joint one was entered for."""
    assert is_joint(config)
    left = replace(
        config,
        outgoing=frozenset(),
        learners=config.learners | config.learners_next,
        learners_next=frozenset(),
        auto_leave=False,
    )
    return _directory(left, config.peers)


def describe(config: Config) -> str:
    """For a log line: `voters 1 2 3, before 1 2, learners 4`."""
    parts = [
        ("voters", config.voters),
        ("before", config.outgoing),
        ("learners", config.learners),
        ("learners next", config.learners_next),
    ]
    return ", ".join(
        f"{name} {' '.join(str(node) for node in sorted(nodes))}" for name, nodes in parts if nodes
    )


def _identity_refusal(config: Config, change: Change) -> str:
    """New members must be new in every respect, also among themselves."""
    nodes = set(all_members(config))
    addresses = {record.address for record in config.peers}
    uuids = {record.uuid for record in config.peers} | set(config.removed)
    for record in change.add_learners:
        if record.node in nodes or record.node < 1:
            return "used_id"
        if record.address in addresses:
            return "used_address"
        if record.uuid in uuids:
            return "used_uuid"
        nodes.add(record.node)
        addresses.add(record.address)
        uuids.add(record.uuid)
    return ""


def _role_refusal(config: Config, change: Change) -> str:
    members = all_members(config)
    if not change.remove | change.promote | change.demote <= members:
        return "unknown_member"
    if not change.promote <= config.learners or change.promote & change.remove:
        return "not_a_learner"
    if not change.demote <= config.voters or change.demote & change.remove:
        return "not_a_voter"
    return ""


def _limit(config: Config, change: Change) -> str:
    voters = (config.voters | change.promote) - change.demote - change.remove
    members = (all_members(config) - change.remove) | _added(change)
    if not voters:
        return "last_voter"
    if len(voters) > VOTERS_MAX:
        return "too_many_voters"
    return "too_many_members" if len(members) > MEMBERS_MAX else ""


def _added(change: Change) -> frozenset[NodeId]:
    return frozenset(record.node for record in change.add_learners)


def _records(config: Config, change: Change, at: Index) -> tuple[PeerRecord, ...]:
    return config.peers + tuple(replace(record, since=at) for record in change.add_learners)


def _directory(config: Config, records: tuple[PeerRecord, ...]) -> Config:
    """`config` with the records of its members; the uuids of the others are kept as removed."""
    members = all_members(config)
    kept = sorted((r for r in records if r.node in members), key=lambda record: record.node)
    gone = tuple(record.uuid for record in records if record.node not in members)
    return replace(config, peers=tuple(kept), removed=(config.removed + gone)[-REMOVED_MAX:])
