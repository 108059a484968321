"""The holder's half of the primary lease."""

import pytest

from pgraft.core.types import EventKind, Release, Renew, RenewReply
from tests.support.raft_lab import MS, Lab


def held() -> Lab:
    """1 leads, 2 holds epoch 1."""
    lab = Lab(1, 2, 3)
    lab.elect(1)
    lab.grant(1, 2, 1)
    lab.settle()
    return lab


def answer(
    lab: Lab, *, epoch: int = 1, boot: int | None = None, ttl_ms: int = 3000, refusal: str = ""
) -> RenewReply:
    return RenewReply(
        epoch=epoch,
        boot=lab.members[2].boot if boot is None else boot,
        sent_at_ns=lab.now,
        ttl_ns=ttl_ms * MS,
        refusal=refusal,
    )


def events(lab: Lab, kind: EventKind) -> list[str]:
    return [event.detail for event in lab.members[2].events if event.kind is kind]


def test_a_grant_alone_is_no_lease() -> None:
    lab = held()
    assert (lab[2].holder.epoch, lab[2].holder.deadline_ns) == (1, 0)
    assert lab[3].holder.epoch == 0


def test_the_deadline_counts_from_when_the_renewal_was_sent() -> None:
    lab = held()
    sent = lab.now
    lab.renew(2)
    lab.now += 400 * MS
    lab.settle()
    assert lab[2].holder.deadline_ns == sent + 2970 * MS


def test_an_older_answer_does_not_shorten_it() -> None:
    lab = held()
    lab.renew(2)
    old = lab.take(Renew)
    lab.now += 100 * MS
    sent = lab.now
    lab.renew(2)
    lab.settle()
    for letter in old:
        lab.deliver(letter)
    lab.settle()
    assert lab[2].holder.deadline_ns == sent + 2970 * MS


def test_the_drift_is_rounded_against_the_holder() -> None:
    lab = held()
    reply = RenewReply(epoch=1, boot=lab.members[2].boot, sent_at_ns=lab.now, ttl_ns=101)
    lab.send(1, 2, reply)
    assert lab[2].holder.deadline_ns == lab.now + 99


@pytest.mark.parametrize("change", [{"epoch": 2}, {"epoch": 0}, {"boot": 1}, {"ttl_ms": 0}])
def test_answers_to_somebody_else_are_dropped(change: dict[str, int]) -> None:
    lab = held()
    lab.send(1, 2, answer(lab, **change))  # type: ignore[arg-type] # only ints here
    assert lab[2].holder.deadline_ns == 0


def test_a_new_lease_is_told_once_and_again_after_it_had_run_out() -> None:
    lab = held()
    for _ in range(3):
        lab.send(1, 2, answer(lab))
    assert events(lab, EventKind.LEASE_CONFIRMED) == ["1"]
    lab.now += 5000 * MS
    lab.send(1, 2, answer(lab))
    assert events(lab, EventKind.LEASE_CONFIRMED) == ["1", "1"]


def test_a_refusal_is_told_when_its_reason_changes() -> None:
    lab = held()
    for refusal in ("sealing", "sealing", "not_ready"):
        lab.send(1, 2, answer(lab, ttl_ms=0, refusal=refusal))
    assert events(lab, EventKind.LEASE_REFUSED) == ["sealing", "not_ready"]
    lab.send(1, 2, answer(lab))
    lab.send(1, 2, answer(lab, ttl_ms=0, refusal="not_ready"))
    assert events(lab, EventKind.LEASE_REFUSED) == ["sealing", "not_ready", "not_ready"]


def test_a_refusal_does_not_shorten_the_lease() -> None:
    lab = held()
    lab.send(1, 2, answer(lab))
    deadline = lab[2].holder.deadline_ns
    lab.send(1, 2, answer(lab, ttl_ms=0, refusal="sealing"))
    assert lab[2].holder.deadline_ns == deadline


def test_nothing_to_renew_or_nobody_to_ask() -> None:
    lab = Lab(1, 2, 3)
    assert not lab[2].holder.renew(lab.now)
    lab.elect(1)
    assert not lab[2].holder.renew(lab.now)
    lab.grant(1, 2, 1)
    lab.settle()
    lab.crash(1)
    lab.expire(2)
    assert lab[2].holder.epoch == 1
    assert not lab[2].holder.renew(lab.now)


def test_a_leader_renews_with_itself() -> None:
    lab = Lab(1, 2, 3)
    lab.elect(1)
    lab.grant(1, 1, 1)
    lab.settle()
    lab.renew(1)
    assert lab[1].holder.deadline_ns == 0, "only a round makes it true"
    lab.settle()
    assert lab[1].holder.deadline_ns == lab.now + 2970 * MS


def test_a_group_of_one_confirms_itself() -> None:
    lab = Lab(1)
    lab.elect(1)
    lab.grant(1, 1, 1)
    lab.renew(1)
    assert lab[1].holder.deadline_ns == lab.now + 2970 * MS
    lab.release(1)
    assert lab[1].granter.released(1) == b"end"
    lab.grant(1, 1, 2)
    assert lab[1].holder.epoch == 2


def test_a_release_ends_the_lease_here_at_once() -> None:
    lab = held()
    lab.renew(2)
    lab.settle()
    lab.release(2)
    assert lab[2].holder.deadline_ns == 0
    assert lab[2].holder.released_epoch == 1
    assert not lab[2].holder.renew(lab.now)


def test_an_answer_on_its_way_does_not_revive_a_released_lease() -> None:
    """C4a."""
    lab = held()
    lab.renew(2)
    for _ in range(3):
        lab.deliver_all()
    replies = lab.take(RenewReply)
    assert replies
    lab.release(2)
    for letter in replies:
        lab.deliver(letter)
    assert lab[2].holder.deadline_ns == 0


def test_a_release_is_repeated_each_heartbeat_until_the_epoch_moves() -> None:
    lab = held()
    lab.cut(1, 2)
    lab.release(2)
    lab.settle()
    lab.heal()
    lab.beat(1)
    lab.elapse(1000)
    sent = [line for line in lab.trace if line.startswith("2->1 Release")]
    assert 8 <= len(sent) <= 12
    lab.grant(1, 3, 2)
    lab.settle()
    lab.trace.clear()
    lab.elapse(1000)
    assert not any("Release" in line for line in lab.trace)


def test_a_release_without_an_epoch_does_nothing() -> None:
    lab = held()
    assert not lab[3].holder.release(b"", lab.now)
    assert lab.letters == []


def test_a_release_without_a_leader_waits_for_one() -> None:
    lab = held()
    lab.crash(1)
    lab.expire(2)
    lab.letters.clear()
    lab.release(2)
    assert lab.take(Release) == []
    lab.elapse(4000)
    assert any("Release epoch 1 end" in line for line in lab.trace) or lab.leaders() == [2]
    assert lab[lab.leaders()[0]].granter.released(1) == b"end"


def test_after_a_restart_the_latch_holds_and_the_release_is_said_again() -> None:
    """C4b: the daemon stored released_epoch before it released."""
    lab = held()
    lab.cut(1, 2)
    lab.release(2, b"first")
    lab.settle()
    lab.restart(2)
    lab.heal()
    lab.beat(1)
    lab.elapse(500)
    assert lab[2].holder.epoch == 1
    assert not lab[2].holder.renew(lab.now)
    lab.send(1, 2, answer(lab))
    assert lab[2].holder.deadline_ns == 0
    lab.release(2, b"again")
    lab.settle()
    assert lab[1].granter.released(1) == b"again"


def test_a_restarted_daemon_that_did_not_release_renews_on() -> None:
    lab = held()
    lab.renew(2)
    lab.settle()
    lab.restart(2)
    assert lab[2].holder.deadline_ns == 0
    lab.beat(1)
    lab.elapse(200)
    lab.renew(2)
    lab.settle()
    assert lab[2].holder.deadline_ns > lab.now


def test_the_next_grant_ends_what_was_held() -> None:
    lab = held()
    lab.renew(2)
    lab.settle()
    lab.cut(1, 2)
    lab.elapse(4000)
    leader = next(n for n in lab.leaders() if n != 2)
    lab.elapse(4000)
    lab.grant(leader, 3, 2)
    lab.settle()
    lab.heal()
    lab.elapse(1000)
    assert (lab[2].holder.epoch, lab[2].holder.deadline_ns) == (0, 0)
    assert lab[3].holder.epoch == 2


def test_an_old_grant_seen_again_after_a_restart_is_no_new_lease() -> None:
    lab = held()
    lab.release(2)
    lab.settle()
    lab.grant(1, 3, 2)
    lab.settle()
    lab.restart(2)
    lab.beat(1)
    lab.elapse(300)
    assert (lab[2].holder.epoch, lab[2].holder.deadline_ns) == (0, 0)


def test_a_suspect_clock_takes_a_tenth_off_what_is_left() -> None:
    """M1: slewed by 8 % it would make the rest of the lease longer than any coordinator waits."""
    lab = held()
    lab.renew(2)
    lab.settle()
    left = lab[2].holder.deadline_ns - lab.now
    lab[2].clock_suspect(True, lab.now)
    assert lab[2].holder.deadline_ns == lab.now + left * 10 // 11


def test_an_answer_to_a_renewal_from_before_counts_a_tenth_less() -> None:
    lab = held()
    sent = lab.now
    lab.renew(2)
    lab[2].clock_suspect(True, lab.now)
    assert lab[2].holder.deadline_ns == 0
    lab.settle()
    assert lab[2].holder.deadline_ns == sent + 2970 * MS * 10 // 11
