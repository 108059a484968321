"""What fell into the coordinator's own pause is nobody's silence."""

from __future__ import annotations

from ramd.coordinator import PAUSE_NS
from ramd.domain.decision import LeaseView
from ramd.domain.observation import Position, SealReport, ServerState
from tests.unit.ramd.rooms.test_coordinator import MS, Desk


def test_after_its_own_pause_it_hears_before_it_judges() -> None:
    desk = Desk()
    desk.all_well()
    desk.beat()
    desk.group.view = LeaseView(may_move_at_ns=desk.now_ns)
    wake_ns = desk.beat(after_ms=PAUSE_NS // MS + 1)
    assert desk.group.sealed == 0, "everybody looked silent only because we stood still"
    assert wake_ns is not None
    assert wake_ns > desk.now_ns


def test_what_fell_into_its_own_pause_is_nobodys_silence() -> None:
    desk = Desk()
    desk.all_well()
    desk.beat()
    desk.group.view = LeaseView(may_move_at_ns=desk.now_ns)
    desk.beat(after_ms=5_000)
    for _ in range(9):
        desk.beat(after_ms=100)
        assert desk.group.sealed == 0, "woken, it has not heard the primary for long enough"
    desk.beat(after_ms=100)
    assert desk.group.sealed == 1, "two beats without a word are silence"


def test_a_primary_heard_after_a_pause_has_a_lease_to_renew() -> None:
    desk = Desk()
    desk.all_well()
    desk.beat()
    desk.group.view = LeaseView(may_move_at_ns=desk.now_ns)
    desk.beat(after_ms=5_000)
    for _ in range(6):
        desk.all_well()
        desk.beat()
        assert desk.group.sealed == 0
    desk.all_well()
    desk.beat()
    assert desk.group.sealed == 1


def test_positions_are_waited_for_anew_after_its_own_pause() -> None:
    desk = Desk()
    desk.all_well()
    desk.beat()
    desk.group.view = LeaseView(may_move_at_ns=desk.now_ns, released=True)
    desk.hear(1, state=ServerState.CRASHED, role=None, accepting=False)
    desk.beat(10)
    directive = desk.coordinator.directive
    assert directive is not None

    def report(node: int, lsn: int) -> None:
        position = Position(timeline=1, lsn=lsn)  # type: ignore[arg-type]
        sealed = SealReport(epoch=1, attempt=directive.attempt, position=position)
        desk.hear(node, sealed=sealed, position=position, upstream=None)

    desk.beat(after_ms=4_000)
    report(3, 1400)
    desk.beat(10)
    assert desk.group.granted == [], "node 2 reported while we stood still: that is on its way"
    report(2, 1500)
    desk.beat(10)
    assert desk.group.granted == [(2, 2)]
