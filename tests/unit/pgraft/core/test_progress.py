"""The flow of Appends to one peer."""

from hypothesis import given
from hypothesis import strategies as st

from pgraft.core.limits import INFLIGHT_APPENDS_MAX
from pgraft.core.progress import Progress
from pgraft.core.types import Index

C0 = Index(0)


def replicating(match: int) -> Progress:
    progress = Progress(Index(match + 1), 0)
    assert progress.acked(Index(match)) is (match > 0)
    return progress


def test_a_probe_sends_one_append_and_waits() -> None:
    progress = Progress(Index(5), 0)
    assert (progress.probing, progress.blocked) == (True, False)
    progress.sent(Index(7), C0)
    # The next index is uncertain: it does not move before the answer.
    assert (progress.blocked, progress.next) == (True, 5)


def test_an_ack_ends_the_probe() -> None:
    progress = Progress(Index(5), 0)
    progress.sent(Index(7), C0)
    assert progress.acked(Index(7))
    assert (progress.probing, progress.blocked, progress.match, progress.next) == (
        False,
        False,
        7,
        8,
    )


def test_an_ack_of_what_was_known_ends_a_probe_too() -> None:
    progress = replicating(4)
    progress.probe()
    progress.sent(None, C0)
    assert not progress.acked(Index(4))
    assert not progress.probing


def test_a_stale_ack_does_not_end_a_probe() -> None:
    progress = replicating(4)
    progress.probe()
    progress.sent(None, C0)
    assert not progress.acked(Index(3))
    assert progress.blocked
    assert (progress.match, progress.next) == (4, 5)


def test_replicating_runs_ahead_up_to_the_window() -> None:
    progress = replicating(1)
    for index in range(2, 2 + INFLIGHT_APPENDS_MAX):
        assert not progress.blocked
        progress.sent(Index(index), C0)
    assert progress.blocked
    assert progress.next == 2 + INFLIGHT_APPENDS_MAX
    progress.acked(Index(3))
    assert not progress.blocked


def test_an_empty_append_takes_no_place_in_the_window() -> None:
    progress = replicating(1)
    for _ in range(INFLIGHT_APPENDS_MAX + 1):
        progress.sent(None, C0)
    assert not progress.blocked


def test_a_rejected_probe_goes_back_to_the_hint() -> None:
    progress = Progress(Index(10), 0)
    progress.sent(None, C0)
    assert progress.rejected(Index(9), Index(4))
    assert progress.next == 5
    assert not progress.blocked


def test_a_hint_past_the_probe_still_goes_back() -> None:
    progress = Progress(Index(10), 0)
    assert progress.rejected(Index(9), Index(50))
    assert progress.next == 9


def test_a_stale_rejection_of_a_probe_is_ignored() -> None:
    progress = Progress(Index(10), 0)
    progress.sent(None, C0)
    assert not progress.rejected(Index(7), Index(1))
    assert progress.next == 10
    assert progress.blocked


def test_a_rejection_below_match_is_stale() -> None:
    progress = replicating(6)
    assert not progress.rejected(Index(6), Index(1))
    assert not progress.probing


def test_a_rejection_while_replicating_probes_after_match() -> None:
    progress = replicating(6)
    progress.sent(Index(9), C0)
    assert progress.rejected(Index(9), Index(1))
    assert progress.probing
    assert progress.next == 7


def test_a_heartbeat_answer_unblocks() -> None:
    probe = Progress(Index(3), 0)
    probe.sent(None, C0)
    probe.resume(0)
    assert not probe.blocked
    full = replicating(1)
    for index in range(2, 2 + INFLIGHT_APPENDS_MAX):
        full.sent(Index(index), C0)
    full.resume(0)
    assert not full.blocked


actions = st.lists(
    st.tuples(st.sampled_from(["send", "ack", "reject", "resume", "probe"]), st.integers(0, 12)),
    max_size=40,
)


@given(actions)
def test_next_stays_above_match_and_match_never_falls(steps: list[tuple[str, int]]) -> None:
    progress, match = Progress(Index(6), 0), 0
    for action, value in steps:
        index = Index(value)
        if action == "send" and not progress.blocked:
            progress.sent(Index(max(value, progress.next)), C0)
        elif action == "ack":
            progress.acked(index)
        elif action == "reject":
            progress.rejected(index, Index(value // 2))
        elif action == "resume":
            progress.resume(0)
        elif action == "probe":
            progress.probe()
        assert progress.next > progress.match >= match
        match = progress.match
