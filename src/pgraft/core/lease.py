"""The primary lease: the right of one node to acknowledge writes, bounded in time.

Lives here: the coordinator's half (`Granter`) and the holder's half (`Holder`). Must not live here:
PostgreSQL, pages, files; Raft's own leadership (a lease is never derived from it). Start reading at
`Granter.on_renew`, then `Granter.elected`, then `Holder.on_reply`.

Why two leases never overlap (docs/adr/0012 has the whole argument):

- A renewal is answered only after a quorum round that began after it arrived, and only while no
  later grant stands in the log. The holder counts ttl·(1-drift) from the moment it *sent* the
  renewal, by its own clock, with the ttl in the answer, which is committed.
- The epoch moves only ttl·(1+drift) plus scheduling after the last renewal that was answered, by
  the coordinator's clock, with the longest ttl that an unexpired lease of the epoch may have.
- A coordinator that was just elected does not know that moment. Each vote says how long ago its
  voter heard any leader; the wait counts from the newest contact among the votes that elected it.
  The quorum of the last confirmed round meets the electing one in some voter, whose contact is at
  or after that round. Transit, and a slow sync of the vote, only make contacts look newer.
- Changes of membership: a round is judged by the configuration in effect when it is judged, which
  is the one in effect when it began or a later one, C. The new coordinator's, D, is not older than
  the one before C, for that is committed. If C and D are the same or follow each other their
  quorums meet, as above. Else the one after C was committed, by acknowledgements that came after
  C's round began: in the same term because it was appended later; in a later term because its
  leader was elected past a voter of the round, and was heard after that. A voter of D's election
  has, by induction along the configurations, heard a leader at or after that moment.
- Transfers: TimeoutNow counts as a contact of the one elected, so the wait begins anew with it. A
  leader that is superseded was its own contact until it stepped down.
- Clocks: voter and new coordinator fast, holder slow, all by the drift, gives exactly ttl. Who
  knows that its clock runs off by more than half of that says so: a holder then renews no more, and
  takes a tenth off what it has left, for a slow clock would stretch it; a
  coordinator that has such a clock, or counted such a vote, dates nothing, and waits a tenth longer
  from its election.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

from pgraft.core.limits import BOOTS_MAX, RENEWALS_MAX, SUSPECT_CLOCK_FACTOR
from pgraft.core.reads import Rounds
from pgraft.core.state import State
from pgraft.core.types import (
    NO_NODE,
    EventKind,
    Grant,
    LeaseTerms,
    Nanos,
    NodeId,
    Release,
    Renew,
    RenewReply,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """A renewal waiting for its round."""

    sender: NodeId
    renew: Renew
    round: int
    received_ns: Nanos


@dataclass(frozen=True, slots=True, kw_only=True)
class Dating:
    """From when a coordinator waits: no lease was renewed after `since_ns`. `doubtful`: a clock
    that this was reckoned with is suspect. `elected_ns`: what our own clock says of our election.
    """

    since_ns: Nanos
    doubtful: bool = False
    elected_ns: Nanos = 0


class Granter:
    """Answers renewals while this node leads, and says when the epoch may move.

    Sealing is the host's and outlives a change of leadership; the rest starts anew with each.
    """

    def __init__(self, state: State, rounds: Rounds) -> None:
        self._state = state
        self._rounds = rounds
        self._pending: deque[_Pending] = deque()
        self._newest: dict[tuple[int, int], Nanos] = {}
        self._release: Release | None = None
        self._sealed = 0
        self._lowered_ns: Nanos = state.now
        self._dating = Dating(since_ns=state.now)

    @property
    def waiting(self) -> bool:
        """Whether renewals wait for a round."""
        return bool(self._pending)

    def seal(self, epoch: int) -> None:
        """The host compares positions to end `epoch`: no renewal of it is answered from now on."""
        self._sealed = epoch

    def unseal(self) -> None:
        """The host has given up ending the epoch."""
        self._sealed = 0

    def released(self, epoch: int) -> bytes | None:
        """The evidence with which the holder gave `epoch` back, None if it did not."""
        if self._release is None or self._release.epoch != epoch:
            return None
        return self._release.evidence

    def may_move_at(self, now: Nanos) -> Nanos | None:
        """From when on the next epoch may be granted; `now` if at once; None if not to be told yet.

        Not to be told: this node does not lead, has applied nothing of its own term, or has just
        stood still itself and must complete a round before it judges anybody's silence.
        """
        grant = self._state.log.applied.grant
        if not self._state.leads_applied:
            return None
        if grant is None or self.released(grant.epoch) is not None:
            return now
        if not self._rounds.judges_silence(now):
            return None
        return self._over_at()

    def elected(self, contacts: Dating) -> None:
        """This node became leader: a lease may have been renewed up to the newest contact among
        the votes that count, `contacts`; up to now, if that cannot be relied on."""
        self._pending.clear()
        self._newest.clear()
        self._release = None
        self._dating = replace(contacts, elected_ns=self._state.now)
        if contacts.doubtful or self._state.clock.suspect:
            self.doubt()

    def doubt(self) -> None:
        """Our clock has become suspect, or a voter's was: what it dated is not relied on."""
        since = max(self._dating.since_ns, self._dating.elected_ns)
        self._dating = replace(self._dating, since_ns=since, doubtful=True)

    def applied(self, before: LeaseTerms) -> None:
        """Other terms than `before` were applied here.

        The holder of a new epoch gets a full ttl to be heard. Of a ttl that was lowered we note
        when we learnt it: it had been committed before, and no renewal that was sent after its
        commit was answered with the longer one. For the leader that committed it applied it at
        once, earlier ones can confirm no round any more, later ones apply it before they answer.
        """
        lease = self._state.log.applied.lease
        if lease.grant != before.grant:
            self._restart(self._state.now)
        if lease.ttl_ns < lease.longest_ns:
            self._lowered_ns = self._state.now

    def on_renew(self, sender: NodeId, renew: Renew) -> None:
        """Take a renewal; it is answered after a round that begins now, or refused at once."""
        grant = self._state.log.applied.grant
        if grant is not None and (grant.holder, grant.epoch) == (sender, renew.epoch):
            self._remember(renew)
        refusal = self._refusal(sender, renew)
        if not refusal and len(self._pending) >= RENEWALS_MAX:
            refusal = "busy"
        if refusal:
            self._refuse(sender, renew, refusal)
            return
        self._pending.append(
            _Pending(
                sender=sender,
                renew=renew,
                round=self._rounds.request(),
                received_ns=self._state.now,
            )
        )

    def on_round(self, confirmed: int) -> None:
        """Rounds up to `confirmed` hold: test every condition again, then answer."""
        while self._pending and self._pending[0].round <= confirmed:
            pending = self._pending.popleft()
            renew = pending.renew
            refusal = self._refusal(pending.sender, renew)
            grant = self._state.log.applied.grant
            if refusal or grant is None:
                self._refuse(pending.sender, renew, refusal)
                continue
            # The lease counts from sent_at, which is before its receipt: receipt is late enough.
            self._restart(max(self._dating.since_ns, pending.received_ns))
            self._state.out.send(
                pending.sender,
                RenewReply(
                    epoch=renew.epoch,
                    boot=renew.boot,
                    sent_at_ns=renew.sent_at_ns,
                    ttl_ns=self._state.log.applied.lease.ttl_ns,
                ),
            )

    def on_release(self, sender: NodeId, release: Release) -> None:
        """The holder gave its epoch back, unless it renewed after it had sent this."""
        grant = self._state.log.applied.grant
        if not self._state.leading or grant is None or self.released(release.epoch) is not None:
            return
        if (grant.holder, grant.epoch) != (sender, release.epoch):
            return
        renewed_ns = self._newest.get((release.epoch, release.boot))
        if renewed_ns is not None and renewed_ns > release.sent_at_ns:
            return
        self._release = release
        self._state.event(EventKind.RELEASED, str(release.epoch))

    def abandon(self) -> None:
        """Leadership is lost: renewals that wait are refused."""
        while self._pending:
            pending = self._pending.popleft()
            self._refuse(pending.sender, pending.renew, "not_leader")

    def _refusal(self, sender: NodeId, renew: Renew) -> str:
        """Why this renewal must not be answered, or "". All of it is tested twice."""
        state = self._state
        grant = state.log.applied.grant
        if not state.leading:
            return "not_leader"
        if not state.leads_applied:
            return "not_ready"
        if grant is None or (grant.holder, grant.epoch) != (sender, renew.epoch):
            return "not_holder"
        if state.log.has_unapplied_grant():
            return "grant_in_flight"
        if self._sealed == renew.epoch:
            return "sealing"
        if self.released(renew.epoch) is not None:
            return "released"
        return ""

    def _remember(self, renew: Renew) -> None:
        key = (renew.epoch, renew.boot)
        self._newest[key] = max(renew.sent_at_ns, self._newest.pop(key, renew.sent_at_ns))
        if len(self._newest) > BOOTS_MAX:
            del self._newest[next(iter(self._newest))]

    def _refuse(self, sender: NodeId, renew: Renew, refusal: str) -> None:
        self._state.out.send(
            sender,
            RenewReply(
                epoch=renew.epoch,
                boot=renew.boot,
                sent_at_ns=renew.sent_at_ns,
                ttl_ns=0,
                refusal=refusal,
            ),
        )

    def _restart(self, since_ns: Nanos) -> None:
        """Count from a moment that our own clock has seen."""
        doubtful = self._state.clock.suspect
        self._dating = replace(self._dating, since_ns=since_ns, doubtful=doubtful)

    def _over_at(self) -> Nanos:
        """When every lease of the epoch is over: those of today's ttl, and longer ones from before
        it was lowered."""
        lease, since_ns = self._state.log.applied.lease, self._dating.since_ns
        today = since_ns + self._wait_ns(lease.ttl_ns)
        if lease.longest_ns == lease.ttl_ns:
            return today
        return max(today, min(since_ns, self._lowered_ns) + self._wait_ns(lease.longest_ns))

    def _wait_ns(self, ttl_ns: Nanos) -> Nanos:
        timing = self._state.me.timing
        factor = SUSPECT_CLOCK_FACTOR if self._dating.doubtful else 1
        return math.ceil(ttl_ns * factor * (1 + timing.drift)) + timing.scheduling_ns


class Holder:
    """This node's own lease of `epoch` (0 = not the holder), until `deadline_ns` (0 = none).

    A release latches: the host stores `released_epoch` durably *before* it calls `release`, and
    hands it back at the next start; no answer for that epoch or an older one is used ever again.
    """

    def __init__(self, state: State, boot: int, released_epoch: int) -> None:
        self._state = state
        self.boot = boot
        self.released_epoch = released_epoch
        self.epoch = 0
        self.deadline_ns: Nanos = 0
        self._release: Release | None = None
        self._repeat_due_ns: Nanos = 0
        self._refusal = ""

    def renew(self, now: Nanos) -> bool:
        """Ask the leader for one more ttl from now; False if there is no epoch, nobody to ask, or
        our own clock is suspect."""
        state = self._state
        state.at(now)
        if state.clock.suspect:
            return False
        if self.epoch <= self.released_epoch or state.leader == NO_NODE:
            return False
        state.out.send(state.leader, Renew(epoch=self.epoch, boot=self.boot, sent_at_ns=state.now))
        return True

    def doubt(self) -> None:
        """Our clock has become suspect: what is left of the lease by it may be more by others."""
        left_ns = self.deadline_ns - self._state.now
        if left_ns > 0:
            self.deadline_ns = self._state.now + math.floor(left_ns / SUSPECT_CLOCK_FACTOR)

    def release(self, evidence: bytes, now: Nanos) -> bool:
        """Give the epoch back for good; told to every leader until the epoch moves.

        The host has stored `released_epoch` and fenced the server before. False if this node holds
        no epoch. After a restart the host calls it again, with its evidence.
        """
        state = self._state
        state.at(now)
        if self.epoch == 0:
            return False
        self.released_epoch = max(self.released_epoch, self.epoch)
        self.deadline_ns = 0
        self._release = Release(
            epoch=self.epoch, boot=self.boot, sent_at_ns=state.now, evidence=evidence
        )
        self._repeat_due_ns = state.now
        self.tick()
        return True

    def tick(self) -> None:
        """Repeat a release that has not moved the epoch yet."""
        state = self._state
        if self._release is None or state.now < self._repeat_due_ns or state.leader == NO_NODE:
            return
        state.out.send(state.leader, self._release)
        self._repeat_due_ns = state.now + state.me.timing.heartbeat_ns

    def on_reply(self, reply: RenewReply) -> None:
        """Use an answer: only of this boot, of the epoch held, and never of a released one."""
        if reply.boot != self.boot or reply.epoch != self.epoch:
            return
        if reply.epoch <= self.released_epoch:
            return
        state = self._state
        if reply.ttl_ns == 0:
            if reply.refusal != self._refusal:
                self._refusal = reply.refusal
                state.event(EventKind.LEASE_REFUSED, reply.refusal)
            return
        self._refusal = ""
        if self.deadline_ns <= state.now:
            state.event(EventKind.LEASE_CONFIRMED, str(self.epoch))
        factor = SUSPECT_CLOCK_FACTOR if state.clock.suspect else 1
        ttl_ns = math.floor(reply.ttl_ns * (1 - state.me.timing.drift) / factor)
        self.deadline_ns = max(self.deadline_ns, reply.sent_at_ns + ttl_ns)

    def observe(self, grant: Grant) -> None:
        """A grant was applied: whatever was held before is over."""
        self.epoch = grant.epoch if grant.holder == self._state.me.node else 0
        self.deadline_ns = 0
        self._release = None
        self._refusal = ""
