"""The coordinator performs what is decided, and nothing while it must not decide."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ramd.coordinator import Coordinator
from ramd.domain.consensus import GroupStatus
from ramd.domain.decision import LeaseView
from ramd.domain.errors import Refused
from ramd.domain.model import Handover, StartMode
from ramd.domain.observation import (
    Attempt,
    DataKind,
    Observation,
    Position,
    SealReport,
    ServerRole,
    ServerState,
)
from ramd.state.apply import apply_grant
from ramd.state.commands import CancelHandover, Command, RecordDecision, decode_grant_payload
from tests.support.fake_consensus import FakeConsensus, cluster, reign

MS = 1_000_000
START = 1_000_000 * MS


class Group(FakeConsensus):
    """A group whose coordinator this node is when the test says so. Grants commit at once."""

    def __init__(self) -> None:
        super().__init__(3, cluster(reign(1, 1), system_id="7"))
        self.cluster = cluster(reign(1, 1), system_id="7")
        self.coordinating = True
        self.ready = True
        self.term = 5
        self.view = LeaseView(may_move_at_ns=START + 60_000 * MS)
        self.sealed = 0
        self.granted: list[tuple[int, int]] = []
        self.transferred: list[int] = []
        self.refuse_grants = False
        self.in_flight = False

    def status(self) -> GroupStatus:
        return replace(
            super().status(),
            coordinator=3 if self.coordinating else 1,
            is_coordinator=self.coordinating,
            ready=self.ready,
            term=self.term,
            in_flight=self.in_flight,
        )

    def lease_view(self) -> LeaseView:
        return self.view

    def seal(self, epoch: int) -> None:
        self.sealed = epoch

    def unseal(self) -> None:
        self.sealed = 0

    def grant(self, holder: int, epoch: int, payload: bytes) -> None:
        if self.refuse_grants:
            raise Refused("lease running")
        self.granted.append((holder, epoch))
        self.cluster = apply_grant(
            self.cluster, holder, epoch, decode_grant_payload(payload), index=9
        )

    def transfer(self, node_id: int) -> None:
        self.transferred.append(node_id)


class Desk:
    """A coordinator of three nodes with a clock that the test turns."""

    def __init__(self) -> None:
        self.group = Group()
        self.now_ns = START
        self.proposed: list[Command] = []
        self.coordinator = Coordinator(
            me=3, consensus=self.group, now_ns=START - 60_000 * MS, propose=self.proposed.append
        )

    def hear(self, node: int, **facts: object) -> bool:
        base = Observation(
            node_id=node,
            boot=1,
            taken_ns=self.now_ns,
            data=DataKind.CLUSTER,
            state=ServerState.RUNNING,
            role=ServerRole.REPLICA,
            accepting=True,
            system_id="7",
            position=Position(timeline=1, lsn=1000),  # type: ignore[arg-type]
            upstream=1,
        )
        return self.coordinator.hear(replace(base, **facts), self.now_ns)  # type: ignore[arg-type]

    def all_well(self) -> None:
        self.hear(1, role=ServerRole.PRIMARY, epoch_opened=1, upstream=None)
        self.hear(2)
        self.hear(3)

    def beat(self, after_ms: int = 500) -> int | None:
        self.now_ns += after_ms * MS
        return self.coordinator.beat(self.now_ns)


def test_nothing_is_directed_while_another_node_coordinates() -> None:
    desk = Desk()
    desk.all_well()
    desk.group.coordinating = False
    assert desk.beat() is None
    assert desk.coordinator.directive is None


def test_nothing_is_directed_before_an_entry_of_the_own_term_is_applied() -> None:
    desk = Desk()
    desk.all_well()
    desk.group.ready = False
    desk.beat()
    assert desk.coordinator.directive is None


def test_a_serving_primary_is_followed_under_an_attempt_of_this_term() -> None:
    desk = Desk()
    desk.all_well()
    desk.beat()
    directive = desk.coordinator.directive
    assert directive is not None
    assert (directive.epoch, directive.sealed) == (1, False)
    assert directive.attempt == Attempt(term=5, number=0)


def test_a_release_seals_and_then_grants_the_next_epoch_to_the_best() -> None:
    desk = Desk()
    desk.all_well()
    desk.beat()
    desk.hear(1, state=ServerState.CRASHED, role=None, accepting=False, epoch_opened=1)
    desk.group.view = LeaseView(may_move_at_ns=desk.now_ns, released=True)
    desk.beat(10)
    directive = desk.coordinator.directive
    assert directive is not None
    assert directive.sealed
    assert desk.group.sealed == 1
    assert desk.group.granted == []

    for node, lsn in ((2, 1500), (3, 1400)):
        position = Position(timeline=1, lsn=lsn)  # type: ignore[arg-type]
        report = SealReport(epoch=1, attempt=directive.attempt, position=position)
        desk.hear(node, sealed=report, position=position, upstream=None)
    desk.beat(10)
    assert desk.group.granted == [(2, 2)]
    newest = desk.group.cluster.reigns[-1]
    assert (newest.timeline, newest.start, newest.seal_lsn) == (2, StartMode.PROMOTE, 1500)
    assert "node 2: eligible" in " ".join(desk.group.cluster.decisions[-1].details)


def test_a_report_of_an_earlier_attempt_does_not_count() -> None:
    desk = Desk()
    desk.all_well()
    desk.beat()
    stale = SealReport(
        epoch=1,
        attempt=Attempt(term=4, number=1),
        position=Position(timeline=1, lsn=9000),  # type: ignore[arg-type]
    )
    desk.group.view = LeaseView(may_move_at_ns=desk.now_ns, released=True)
    desk.hear(1, state=ServerState.CRASHED, role=None, accepting=False)
    desk.hear(2, sealed=stale)
    desk.hear(3)
    desk.beat(10)
    desk.beat(10)
    assert desk.group.granted == []


def test_only_a_follow_unseals() -> None:
    desk = Desk()
    desk.all_well()
    desk.beat()
    desk.group.view = LeaseView(may_move_at_ns=desk.now_ns)
    desk.hear(1, state=ServerState.STARTING, role=None, accepting=False)
    desk.beat(10)
    assert desk.group.sealed == 1
    # The primary serves again and its lease runs: the attempt ends, renewals are answered again.
    desk.group.view = LeaseView(may_move_at_ns=desk.now_ns + 3_000 * MS)
    desk.all_well()
    desk.beat(10)
    follow = desk.coordinator.directive
    assert follow is not None
    assert not follow.sealed
    assert follow.attempt == Attempt(term=5, number=1)
    assert desk.group.sealed == 0


def about_to_grant(copy: str = "") -> Desk:
    """Node 1 is gone, 2 and 3 are sealed and hold the same: the next beat grants."""
    desk = Desk()
    desk.all_well()
    desk.group.view = LeaseView(may_move_at_ns=desk.now_ns, released=True)
    desk.hear(1, state=ServerState.CRASHED, role=None, accepting=False)
    desk.beat(10)
    directive = desk.coordinator.directive
    assert directive is not None
    for node in (2, 3):
        position = Position(timeline=1, lsn=1500)  # type: ignore[arg-type]
        report = SealReport(epoch=1, attempt=directive.attempt, position=position, copy=copy)
        desk.hear(node, sealed=report)
    return desk


def test_a_refused_grant_is_decided_again_and_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = about_to_grant()
    desk.group.refuse_grants = True
    for _ in range(3):
        desk.beat(10)
    assert desk.group.granted == []
    assert told(caplog) == ["lease running"]
    desk.group.refuse_grants = False
    desk.beat(10)
    assert desk.group.granted == [(2, 2)]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Why grants were refused, as logged."""
    refused = (r for r in caplog.records if getattr(r, "event", "") == "grant_refused")
    return [str(getattr(record, "reason", "")) for record in refused]


def test_a_grant_waits_for_entries_that_stand_before_it(caplog: pytest.LogCaptureFixture) -> None:
    """One of them may take the winner out, or change the set that the grant was decided under: the
    group's lease would move, and the state would refuse the grant (each for good)."""
    desk = about_to_grant()
    desk.group.in_flight = True
    desk.beat(10)
    assert desk.group.granted == []
    assert told(caplog) == []
    desk.group.in_flight = False
    desk.beat(10)
    assert desk.group.granted == [(2, 2)]


def test_a_grant_that_the_state_would_refuse_is_never_appended(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = about_to_grant()
    monkeypatch.setattr("ramd.coordinator.grant_obstacle", lambda *_: "node 2 is not a member")
    desk.beat(10)
    assert desk.group.granted == []
    assert told(caplog) == ["node 2 is not a member"]


def test_a_new_term_starts_from_nothing() -> None:
    desk = Desk()
    desk.all_well()
    desk.beat()
    desk.group.term = 6
    desk.group.ready = False
    desk.beat()
    silent = desk.coordinator.directive
    assert silent is None
    desk.group.ready = True
    desk.all_well()
    desk.beat()
    directive = desk.coordinator.directive
    assert directive is not None
    assert directive.attempt == Attempt(term=6, number=0)


def test_older_news_never_displaces_newer() -> None:
    desk = Desk()
    desk.all_well()
    fresh_ns = desk.now_ns
    old = Observation(node_id=2, boot=99, taken_ns=1, state=ServerState.CRASHED)
    assert not desk.coordinator.hear(old, fresh_ns - 1)
    assert desk.coordinator.heard[2].observation.state is ServerState.RUNNING


def test_an_older_observation_of_the_same_run_is_dropped_however_late_it_comes() -> None:
    desk = Desk()
    desk.all_well()
    late = replace(desk.coordinator.heard[2].observation, taken_ns=1, state=ServerState.STARTING)
    assert not desk.coordinator.hear(late, desk.now_ns + MS)
    assert desk.coordinator.heard[2].observation.state is ServerState.RUNNING


def test_only_definite_news_wakes() -> None:
    desk = Desk()
    desk.all_well()
    desk.now_ns += MS
    assert not desk.hear(2, lag_seconds=3.5)
    desk.now_ns += MS
    assert desk.hear(2, state=ServerState.CRASHED)


def test_the_coordinator_moves_off_the_primarys_host() -> None:
    desk = Desk()
    desk.group.cluster = cluster(reign(1, 3), system_id="7")
    for _ in range(10):
        desk.hear(3, role=ServerRole.PRIMARY, epoch_opened=1, upstream=None)
        desk.hear(1)
        desk.hear(2)
        desk.beat()
    assert desk.group.transferred == [1]


def test_a_hopeless_handover_is_cancelled_by_command() -> None:
    desk = Desk()
    desk.group.cluster = replace(
        desk.group.cluster, handover=Handover(epoch=1, target=None, requested_by="test")
    )
    for _ in range(8):
        desk.hear(1, role=ServerRole.PRIMARY, epoch_opened=1, upstream=None)
        desk.hear(2, state=ServerState.CRASHED, role=None, accepting=False)
        desk.hear(3, state=ServerState.CRASHED, role=None, accepting=False)
        desk.beat()
    assert CancelHandover in [type(command) for command in desk.proposed]


def test_a_change_of_mind_is_recorded_once() -> None:
    desk = Desk()
    desk.all_well()
    desk.beat()
    desk.hear(1, state=ServerState.STARTING, role=None, accepting=False)
    for _ in range(3):
        desk.beat(10)
    records = [c.record for c in desk.proposed if isinstance(c, RecordDecision)]
    assert [record.rule for record in records] == ["primary_opening"]


def test_why_nobody_takes_over_is_kept_whenever_it_changes() -> None:
    desk = Desk()
    desk.all_well()
    desk.beat()
    desk.group.view = LeaseView(may_move_at_ns=START)
    for node in (1, 2, 3):
        desk.hear(node, data=DataKind.ABSENT, state=ServerState.STOPPED, role=None)
    desk.beat()
    desk.beat()
    desk.beat()

    def reasons() -> list[str]:
        records = [c.record for c in desk.proposed if isinstance(c, RecordDecision)]
        return [record.reason for record in records if record.rule == "nobody_eligible"]

    assert len(reasons()) == 1
    desk.hear(2, data=DataKind.FOREIGN, state=ServerState.STOPPED, role=None)
    desk.beat()
    assert len(reasons()) == 2
    assert "foreign" in reasons()[-1]
