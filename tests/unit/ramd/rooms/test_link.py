"""What the link tells of its member, and the certificates it shows to others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pgraft.core.types import (
    Config,
    CoreEvent,
    Entry,
    EntryKind,
    EventKind,
    Grant,
    Index,
    LeaseTerms,
    NodeId,
    PeerRecord,
    Role,
    Snapshot,
    Term,
)
from pgraft.net.tls import TlsError
from pgraft.net.transport import Refusal
from pgraft.node import NodeStatus
from pgraft.node.counts import ElectionNote, LoopLag
from ramd.config.tls import TlsPaths
from ramd.domain.errors import ConfigError
from ramd.domain.model import ClusterState, DecisionRecord, Reign, StartMode
from ramd.domain.raft import DiskFacts, RaftFacts
from ramd.link.certificates import PeerTls
from ramd.link.facts import Facts
from ramd.link.other_groups import TOLD_MAX, OtherGroups
from ramd.link.removal import RemovalWatch
from ramd.link.state_copy import StateCopy
from ramd.state.commands import GrantPayload, UndecodableError, encode_grant_payload
from ramd.state.wire import encode_state

ONE, TWO, THREE, FOUR = (NodeId(n) for n in (1, 2, 3, 4))


def ignored(_granted: bool) -> None:
    """Nobody waits for a change."""


def facts(copy: StateCopy | None = None) -> Facts:
    channel: Any = SimpleNamespace(
        transport=SimpleNamespace(linked=lambda node: node == TWO),
    )
    watch = RemovalWatch("u1", lambda: None)
    return Facts(channel, copy or StateCopy(ignored), watch, group_id="c0ffee")


def status(**more: Any) -> NodeStatus:
    given: dict[str, Any] = {
        "node": ONE,
        "role": Role.LEADER,
        "term": Term(7),
        "leader": ONE,
        "commit": Index(40),
        "applied": Index(39),
        "last_index": Index(41),
        "config": Config(voters=frozenset({ONE, TWO, THREE}), learners=frozenset({FOUR})),
        "committed_config": Config(voters=frozenset({ONE})),
        "snapshot_index": Index(30),
    }
    return NodeStatus(**(given | more))


def told(**more: Any) -> RaftFacts:
    return facts().of(status(**more), LoopLag(last_ns=2_000_000, max_ns=90_000_000))


def test_every_other_member_with_what_the_coordinator_knows_of_it() -> None:
    found = told(match={TWO: Index(40)}, last_contact_ns={TWO: 5, FOUR: 6})
    assert [peer.node_id for peer in found.peers] == [2, 3, 4]
    assert [peer.connected for peer in found.peers] == [True, False, False]
    assert [peer.match_index for peer in found.peers] == [40, None, None]
    assert [peer.contact_ns for peer in found.peers] == [5, None, 6]
    assert found.peer(4) is found.peers[2]
    assert found.peer(9) is None
    assert (found.group_id, found.role, found.term, found.snapshot_index) == (
        "c0ffee",
        "leader",
        7,
        30,
    )
    assert (found.loop_lag_ms, found.loop_lag_max_ms) == (2, 90)


def test_a_joint_change_shows_both_sides_and_needs_the_larger_majority() -> None:
    config = Config(
        voters=frozenset({ONE, TWO}),
        outgoing=frozenset({ONE, TWO, THREE}),
        learners_next=frozenset({THREE}),
    )
    found = told(config=config)
    assert (found.voters, found.outgoing, found.learners) == ((1, 2), (1, 2, 3), (3,))
    assert found.majority == 2
    assert told().outgoing == ()
    assert told().majority == 2


def test_what_was_counted_and_measured() -> None:
    note = ElectionNote(at_ns=9, term=Term(7), reason="campaign")
    found = told(
        disk_sync_ms=(0.5, 4.0, 30.0),
        elections=(note,),
        refused={"tls": 2, "secret": 1},
        frames_dropped=3,
        loop_pauses=4,
        snapshots_taken=5,
        transfer_to=TWO,
    )
    assert found.disk == DiskFacts(p50_ms=0.5, p99_ms=4.0, max_ms=30.0)
    assert told().disk is None, "nothing was synced yet"
    assert [(e.at_ns, e.term, e.reason) for e in found.elections] == [(9, 7, "campaign")]
    counts = found.counts
    assert counts.refused == (("secret", 1), ("tls", 2))
    assert (counts.frames_dropped, counts.pauses, counts.snapshots_taken) == (3, 4, 5)
    assert found.transfer_to == 2
    assert told().transfer_to is None


def test_elections_are_counted_by_reason() -> None:
    subject = facts()
    for detail in ("", "transfer", ""):
        subject.happened(CoreEvent(kind=EventKind.CAMPAIGN, term=Term(1), detail=detail))
    subject.happened(CoreEvent(kind=EventKind.STEPPED_DOWN, term=Term(1)))
    found = subject.of(status(), LoopLag())
    assert found.counts.elections == (("timeout", 2), ("transfer", 1))


def test_a_removed_member_is_known_by_its_own_log() -> None:
    here = PeerRecord(node=ONE, uuid="u1", address="h:1")
    assert facts().removed(Config(voters=frozenset({ONE}), peers=(here,))) == ""
    assert facts().removed(Config(voters=frozenset({TWO}), removed=("u1",))) != ""


def test_a_state_survives_its_snapshot_and_the_longest_lease_with_it() -> None:
    copy = StateCopy(ignored)
    changes: list[bool] = []
    copy.state = ClusterState(cluster_id="c", cluster_name="demo", applied_index=8)
    data = copy.snapshot()
    assert data == encode_state(copy.state)
    other = StateCopy(changes.append)
    grant = Grant(holder=ONE, epoch=1, ttl_ns=1)
    taken = Snapshot(
        index=Index(9),
        term=Term(4),
        config=Config(voters=frozenset({ONE})),
        lease=LeaseTerms(grant=grant, ttl_ns=1, longest_ns=15_000_000_000),
        data=data,
    )
    other.restore(taken)
    assert (other.state, other.term, changes) == (copy.state, 4, [True])
    assert facts(other).of(status(), LoopLag()).longest_ttl_ms == 15_000
    blank = StateCopy(ignored)
    blank.restore(Snapshot(index=Index(1), term=Term(1), config=taken.config))
    assert blank.state == ClusterState()
    with pytest.raises(UndecodableError):
        blank.restore(Snapshot(index=Index(1), term=Term(1), config=taken.config, data=b"x"))


def test_a_grant_that_the_state_refuses_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    copy = StateCopy(ignored)
    reign = Reign(epoch=1, node_id=1, timeline=1, start=StartMode.OPEN)
    record = DecisionRecord(epoch=1, rule="r", action="GrantTo", reason="why")
    payload = encode_grant_payload(GrantPayload(reign=reign, record=record))
    grant = Grant(holder=ONE, epoch=1, ttl_ns=1, payload=payload)
    copy.apply(Entry(index=Index(1), term=Term(1), kind=EntryKind.GRANT, grant=grant))
    assert copy.state.epoch == 0
    ignored_entries = [r for r in caplog.records if getattr(r, "event", "") == "entry_ignored"]
    assert [getattr(r, "why", "") for r in ignored_entries] == [
        "the grant of epoch 1 is refused: node 1 is not a member"
    ]


# --- certificates ----------------------------------------------------------------------------


class Transport:
    """Takes new files, or says what is wrong with them."""

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong
        self.taken: list[Any] = []

    def reload_tls(self, files: Any) -> None:
        if self.wrong:
            raise TlsError(self.wrong)
        self.taken.append(files)


def paths(name: str) -> TlsPaths:
    place = Path("/tls") / name
    return TlsPaths(cert=place / "crt", key=place / "key", ca=place / "ca")


def test_renewed_certificates_count_for_this_membership_and_the_next() -> None:
    tls, transport = PeerTls(paths("old")), Transport()
    tls.renew(paths("before any"))
    tls.serve(transport)  # type: ignore[arg-type]
    tls.renew(paths("new"))
    assert [files.cert for files in transport.taken] == [Path("/tls/new/crt")]
    assert tls.files is not None
    assert tls.files.ca == Path("/tls/new/ca")


def test_files_that_the_transport_refuses_leave_the_old_ones_in_force() -> None:
    tls = PeerTls(paths("old"))
    tls.serve(Transport("no certificate"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no certificate"):
        tls.renew(paths("new"))
    assert tls.files is not None
    assert tls.files.cert == Path("/tls/old/crt")


def test_tls_is_not_switched_on_under_way() -> None:
    tls = PeerTls(None)
    assert tls.files is None
    with pytest.raises(ConfigError, match="needs a restart"):
        tls.renew(paths("new"))


# --- other groups ----------------------------------------------------------------------------


def test_each_node_of_another_group_is_spoken_of_once(caplog: pytest.LogCaptureFixture) -> None:
    subject = OtherGroups()

    def hear(node: int, code: str = "cluster_id", *, by_peer: bool = True) -> None:
        subject.on_refused(Refusal(node=NodeId(node), code=code, text="why", by_peer=by_peer))

    hear(2)
    hear(2)
    hear(3, "secret")
    hear(3, by_peer=False)
    said = [r for r in caplog.records if getattr(r, "event", "") == "other_group"]
    assert len(said) == 1
    assert "node 2 belongs to another group" in said[0].getMessage()
    for node in range(10, 10 + 2 * TOLD_MAX):
        hear(node)
    said = [r for r in caplog.records if getattr(r, "event", "") == "other_group"]
    assert len(said) == TOLD_MAX
