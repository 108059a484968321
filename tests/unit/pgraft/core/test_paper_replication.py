"""Raft §5.3, one test per claim."""

import pytest

from pgraft.core.limits import APPEND_ENTRIES_MAX, INFLIGHT_APPENDS_MAX
from pgraft.core.types import (
    Append,
    AppendReply,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    Index,
    NodeId,
    SafetyViolation,
    Term,
)
from tests.support.raft_lab import Lab, entries, recovered


def append(term: int, prev: tuple[int, int], *terms: int, commit: int = 0) -> Append:
    prev_term, prev_index = prev
    return Append(
        term=Term(term),
        prev_index=Index(prev_index),
        prev_term=Term(prev_term),
        commit=Index(commit),
        entries=entries(*terms, first=prev_index + 1),
    )


def replies(lab: Lab, to: int) -> list[AppendReply]:
    return [x.message for x in lab.take(AppendReply, to=to) if isinstance(x.message, AppendReply)]


def led() -> Lab:
    lab = Lab(1, 2, 3)
    lab.elect(1)
    return lab


def test_5_3_a_command_becomes_an_entry_of_the_leaders_term_and_is_sent_to_all() -> None:
    lab = led()
    assert lab.propose(1, b"hello") == (1, 2)
    sent = lab.take(Append)
    assert sorted(int(x.to) for x in sent) == [2, 3]
    for letter in sent:
        assert isinstance(letter.message, Append)
        (entry,) = letter.message.entries
        assert (entry.term, entry.index, entry.kind, entry.data) == (
            1,
            2,
            EntryKind.COMMAND,
            b"hello",
        )


def test_5_3_an_entry_is_committed_once_a_majority_has_it() -> None:
    lab = led()
    lab.isolate(3)
    lab.propose(1)
    assert lab.status(1).commit == 1
    lab.settle()
    assert lab.status(1).commit == 2


def test_5_3_less_than_a_majority_commits_nothing() -> None:
    lab = led()
    lab.isolate(2)
    lab.isolate(3)
    lab.propose(1)
    lab.settle()
    assert lab.status(1).commit == 1


def test_5_3_followers_learn_the_commit_index_and_apply_in_order() -> None:
    lab = led()
    for data in (b"a", b"b", b"c"):
        lab.propose(1, data)
    lab.settle()
    assert [lab.commands(node) for node in (1, 2, 3)] == [[b"a", b"b", b"c"]] * 3


def test_5_3_a_follower_behind_hears_of_a_commit_without_waiting_for_a_heartbeat() -> None:
    lab = Lab(1, 2, 3)
    lab.expire(1)
    lab.settle()
    assert [lab.status(node).applied for node in (1, 2, 3)] == [1, 1, 1]


def test_5_3_a_committed_entry_commits_all_before_it() -> None:
    lab = Lab(1, 2, 3, logs={1: recovered(1, 1, 2)})
    lab.elect(1)
    assert lab.status(1).commit == 4
    assert lab.commands(1) == [b"1/1", b"1/2", b"2/3"]


def test_5_3_an_append_is_refused_if_the_entry_before_it_does_not_match() -> None:
    lab = Lab(1, 2, 3, logs={1: recovered(1, 2)})
    lab.send(2, 1, append(3, (3, 2)))
    lab.send(2, 1, append(3, (2, 7)))
    assert [(r.ok, r.rejected) for r in replies(lab, to=2)] == [(False, 2), (False, 7)]
    assert lab.terms(1) == [1, 2]


@pytest.mark.parametrize(
    ("log", "message", "result"),
    [
        ((1, 1), append(3, (1, 2), 3), [1, 1, 3]),
        ((1, 2), append(3, (0, 0), 1, 3), [1, 3]),
        ((1, 2, 2), append(3, (1, 1), 3), [1, 3]),
        ((1, 2), append(3, (1, 1), 2), [1, 2]),
        ((1, 2), append(3, (0, 0)), [1, 2]),
    ],
    ids=["extend", "replace the end", "cut what follows", "known", "empty"],
)
def test_5_3_conflicts_are_replaced_by_the_leaders_entries(
    log: tuple[int, ...], message: Append, result: list[int]
) -> None:
    lab = Lab(1, 2, 3, logs={1: recovered(*log)})
    lab.send(2, 1, message)
    assert lab.terms(1) == result
    assert [e.term for e in lab.members[1].disk.entries] == result
    (reply,) = replies(lab, to=2)
    assert (reply.ok, reply.match) == (True, message.prev_index + len(message.entries))


FOLLOWERS = {
    "missing entries": (1, 1, 1, 4, 4, 5, 5, 6, 6),
    "missing many": (1, 1, 1, 4),
    "one too many": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "a term of its own": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "a long tail of its own": (1, 1, 1, 4, 4, 4, 4),
    "two terms of its own": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}


@pytest.mark.parametrize("follower", FOLLOWERS.values(), ids=FOLLOWERS.keys())
def test_5_3_figure_7_the_leader_brings_every_log_to_its_own(follower: tuple[int, ...]) -> None:
    leader = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
    lab = Lab(
        1,
        2,
        3,
        logs={
            1: recovered(*leader, term=7),
            2: recovered(*follower, term=7),
            3: recovered(*leader, term=7),
        },
    )
    lab.cut(1, 2)
    lab.elect(1)
    lab.heal()
    lab.beat(1)
    lab.beat(1)
    assert lab.terms(1) == [*leader, 8]
    assert lab.terms(2) == lab.terms(1)
    assert lab.commands(2) == lab.commands(1)


def test_5_3_a_rejection_skips_a_term_per_round_trip() -> None:
    """The optimization at the end of §5.3: one probe per conflicting term, not per entry."""
    lab = Lab(
        1,
        2,
        3,
        logs={
            1: recovered(*[1] * 5, *[4] * 30),
            2: recovered(*[1] * 5, *[2] * 30),
            3: recovered(*[1] * 5, *[4] * 30),
        },
    )
    lab.cut(1, 2)
    lab.elect(1)
    lab.heal()
    lab.trace.clear()
    lab.beat(1)
    probes = [
        line for line in lab.trace if line.startswith("2->1 AppendReply") and "rejects" in line
    ]
    assert len(probes) <= 3
    assert lab.terms(2) == lab.terms(1)


def test_5_3_a_leader_never_changes_or_removes_its_own_entries() -> None:
    lab = led()
    lab.propose(1, b"mine")
    before = lab.log(1)
    lab.isolate(1)
    lab.propose(1, b"more")
    assert lab.log(1)[: len(before)] == before


def test_5_3_a_lost_append_is_sent_again() -> None:
    lab = led()
    lab.cut(1, 2)
    lab.propose(1, b"a")
    lab.settle()
    lab.heal()
    assert lab.status(2).last_index == 1
    lab.beat(1)
    assert lab.commands(2) == [b"a"]


def test_5_3_a_lost_append_in_the_middle_is_found_by_the_next_one() -> None:
    lab = led()
    lab.propose(1, b"a")
    lab.take(Append, to=2)
    lab.propose(1, b"b")
    lab.settle()
    assert lab.commands(2) == [b"a", b"b"]


def test_5_3_a_lost_answer_does_no_harm() -> None:
    lab = led()
    lab.propose(1, b"a")
    lab.deliver_all()
    lab.take(AppendReply)
    lab.beat(1)
    assert lab.commands(2) == [b"a"]
    assert lab.status(1).commit == 2


def test_5_3_the_window_bounds_what_is_under_way_and_a_heartbeat_opens_it() -> None:
    lab = led()
    for _ in range(INFLIGHT_APPENDS_MAX + 5):
        lab.propose(1)
    assert len(lab.take(Append, to=2)) == INFLIGHT_APPENDS_MAX
    lab.take(Append, to=3)
    lab.settle()
    assert lab.status(2).last_index == 1
    for _ in range(3):
        lab.beat(1)
    assert lab.status(2).commit == INFLIGHT_APPENDS_MAX + 6


def test_5_3_a_long_log_travels_in_bounded_messages() -> None:
    length = 3 * APPEND_ENTRIES_MAX
    lab = Lab(1, 2, 3, logs={1: recovered(*[1] * length), 3: recovered(*[1] * length)})
    lab.expire(1)
    longest = 0
    for _ in range(50):
        longest = max(
            [longest]
            + [len(x.message.entries) for x in lab.letters if isinstance(x.message, Append)]
        )
        lab.deliver_all()
    assert longest == APPEND_ENTRIES_MAX
    assert lab.status(2).last_index == length + 1


def test_5_3_the_leaders_own_entry_counts_only_when_it_is_durable() -> None:
    """Thesis §10.2.1: written in parallel, so never counted early."""
    lab = led()
    lab.isolate(3)
    lab.hold(1)
    lab.propose(1, b"a")
    lab.settle()
    assert lab.status(1).commit == 1
    lab.sync(1)
    assert lab.status(1).commit == 2


def test_5_3_a_majority_of_others_commits_before_the_leaders_own_disk_does() -> None:
    lab = led()
    lab.hold(1)
    lab.propose(1, b"a")
    lab.settle()
    assert lab.status(1).commit == 2


def test_5_3_an_ack_leaves_only_when_the_entries_are_durable() -> None:
    lab = led()
    lab.hold(2)
    lab.isolate(3)
    lab.propose(1, b"a")
    lab.settle()
    assert lab.status(1).commit == 1
    lab.sync(2)
    lab.settle()
    assert lab.status(1).commit == 2


def test_5_3_an_ack_of_an_older_term_moves_nothing() -> None:
    lab = led()
    lab.isolate(1)
    lab.elapse(3000, only=[2, 3])
    (_, leader) = lab.leaders()
    term, last = lab.propose(leader)
    for sender in {1, 2, 3} - {leader}:
        lab.send(sender, leader, AppendReply(term=Term(term - 1), ok=True, match=last))
    assert lab.status(leader).commit == last - 1


def test_5_3_an_ack_past_the_end_of_the_leaders_log_is_dropped() -> None:
    lab = led()
    lab.send(2, 1, AppendReply(term=Term(1), ok=True, match=Index(99)))
    assert lab.status(1).match[NodeId(2)] == 1
    assert lab.status(1).commit == 1


def test_5_3_acks_of_strangers_and_to_followers_are_dropped() -> None:
    lab = led()
    before = lab.status(1), lab.status(2)
    for sender, to in ((9, 1), (3, 2)):
        lab.send(sender, to, AppendReply(term=Term(1), ok=True, match=Index(1)))
        lab.send(sender, to, HeartbeatReply(term=Term(1), round=1))
    assert (lab.status(1), lab.status(2)) == before


def test_5_3_an_old_append_that_comes_again_removes_nothing() -> None:
    lab = led()
    lab.propose(1, b"a")
    old = lab.take(Append, to=2)
    lab.propose(1, b"b")
    lab.propose(1, b"c")
    lab.settle()
    lab.beat(1)
    assert lab.status(2).commit == 4
    for letter in old:
        lab.deliver(letter)
    assert lab.commands(2) == [b"a", b"b", b"c"]
    assert lab.status(2).last_index == 4


def test_5_3_a_follower_commits_only_what_the_message_proved() -> None:
    """Its tail beyond the last new entry may be of another leader."""
    lab = Lab(1, 2, 3, logs={1: recovered(1, 2, 2)})
    lab.send(2, 1, append(3, (0, 0), 1, commit=3))
    assert lab.status(1).commit == 1


def test_5_3_a_heartbeat_commits_only_what_was_acknowledged() -> None:
    lab = led()
    lab.cut(1, 2)
    lab.propose(1, b"a")
    lab.settle()
    lab.now += lab.timing.heartbeat_ns
    lab.tick(1)
    beats = {int(x.to): x.message for x in lab.take(Heartbeat)}
    assert {to: beat.commit for to, beat in beats.items() if isinstance(beat, Heartbeat)} == {
        2: 1,
        3: 2,
    }


def test_5_3_a_gap_inside_a_message_is_dropped() -> None:
    lab = Lab(1, 2, 3)
    bad = Append(
        term=Term(1),
        prev_index=Index(0),
        prev_term=Term(0),
        commit=Index(0),
        entries=entries(1, first=2),
    )
    lab.send(2, 1, bad)
    assert lab.letters == []
    assert lab.status(1).last_index == 0


def test_5_3_two_leaders_in_one_term_stop_the_process() -> None:
    lab = led()
    with pytest.raises(SafetyViolation, match="two leaders in term 1"):
        lab.send(3, 2, append(1, (1, 1)))
    with pytest.raises(SafetyViolation, match="two leaders in term 1"):
        lab.send(3, 1, append(1, (1, 1)))


def test_5_3_a_committed_entry_that_would_be_overwritten_stops_the_process() -> None:
    lab = led()
    with pytest.raises(SafetyViolation, match="entry 1 is committed"):
        lab.send(3, 2, append(2, (0, 0), 2))
