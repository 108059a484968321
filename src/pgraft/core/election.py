"""Who leads: timeouts, PreVote, votes, leader stickiness, fast elections.

Lives here: Raft §5.2, §5.4.1 and thesis §9.6 (PreVote), §4.2.3 (stickiness). Must not live here:
what a leader does (see `replication`), term rules for other messages (see `messages`).
Start reading at `Election.tick`.

Timeouts are uniform in (E, 2E], strictly above the E for which a voter sticks to its leader.
"""

from __future__ import annotations

from pgraft.core.config import all_voters, is_voter
from pgraft.core.lease import Dating
from pgraft.core.limits import FAST_ELECTION_JITTER_NS
from pgraft.core.quorum import VoteResult, vote_result
from pgraft.core.state import State
from pgraft.core.types import (
    NO_NODE,
    EventKind,
    NodeId,
    Role,
    Term,
    VoteReply,
    VoteRequest,
)


class Election:
    """One member's part in elections.

    `contact_ns` is the latest time a leader of a term not below ours was heard; a leader's own is
    "now" until it steps down; it starts at process start and never falls. It travels in votes.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._votes: dict[NodeId, bool] = {}
        self._contacts: list[Dating] = []
        self._links_down: set[NodeId] = set()
        self._ticked_ns = state.now
        self.contact_ns = state.now
        self.deadline_ns = state.now
        self.rearm()

    def rearm(self) -> None:
        """Start a fresh election timeout, uniform in (E, 2E]."""
        e_ns = self._state.me.timing.election_ns
        self.deadline_ns = self._state.now + e_ns + 1 + self._state.me.rng.randrange(e_ns)

    def paused(self) -> bool:
        """Called once per tick: whether this process itself stood still for more than E."""
        gap = self._state.now - self._ticked_ns
        self._ticked_ns = self._state.now
        return gap > self._state.me.timing.election_ns

    @property
    def wake_ns(self) -> int:
        """When to tick next: in time for the timeout, and often enough to notice a pause."""
        latest = self._ticked_ns + self._state.me.timing.heartbeat_ns
        return latest if self._state.leading else min(latest, self.deadline_ns)

    def heard_leader(self, leader: NodeId) -> None:
        """A message of the current leader arrived: its link works, and the timeout starts anew."""
        self.contact_ns = self._state.now
        self._links_down.discard(leader)
        self.rearm()

    def link(self, peer: NodeId, up: bool) -> None:
        """The transport saw a link break or come back.

        A hint for speed only: a follower whose leader's link broke campaigns within 20 ms, which
        succeeds only where a quorum of voters lost it too.
        """
        state = self._state
        if up:
            self._links_down.discard(peer)
            return
        self._links_down.add(peer)
        if state.role is Role.FOLLOWER and peer == state.leader:
            soon = state.now + state.me.rng.randrange(FAST_ELECTION_JITTER_NS + 1)
            self.deadline_ns = min(self.deadline_ns, soon)

    def tick(self) -> None:
        """Campaign when the timeout has passed, unless our own disk hangs: we could not win.

        Who may not campaign forgets its leader all the same: a holder that heard none for so long
        must not go on to renew its lease by a path that works in one direction only.
        """
        state = self._state
        if state.now < self.deadline_ns:
            return
        self.rearm()
        if not state.may_campaign:
            state.become(Role.FOLLOWER)
        elif state.log.writes.stalled_ns(state.now) <= state.me.timing.election_ns:
            self._pre_campaign()

    def campaign(self, *, transfer: bool = False) -> None:
        """Enter a new term and ask for votes (Raft §5.2); our own counts once it is durable."""
        state = self._state
        if not state.may_campaign:
            return
        state.enter_term(Term(state.term + 1), vote=state.me.node)
        state.become(Role.CANDIDATE)
        state.event(EventKind.CAMPAIGN, "transfer" if transfer else "")
        self._votes = {}
        self._contacts = []
        self.rearm()
        self._ask(
            VoteRequest(
                term=state.term,
                last_index=state.log.last_index,
                last_term=state.log.last_term,
                transfer=transfer,
            )
        )
        state.out.send_after_sync(state.me.node, self._reply(granted=True))

    def sticks(self) -> bool:
        """Whether this node believes in a living leader and refuses to help replace it.

        The belief ends E after the last contact, or at once when our own link to it is down.
        """
        state = self._state
        if state.leading:
            return True
        if state.leader == NO_NODE or state.leader in self._links_down:
            return False
        return state.now - self.contact_ns < state.me.timing.election_ns

    def on_pre_vote(self, candidate: NodeId, request: VoteRequest) -> None:
        """Would we vote for it? Nothing changes here, whatever the answer (thesis §9.6).

        The log is checked as for a real vote; a refusal carries our term, so that a member with a
        long log and a low term catches up.
        """
        state = self._state
        granted = (
            request.term > state.term
            and not self.sticks()
            and state.log.is_current(request.last_index, request.last_term)
        )
        if granted:
            # Two fast campaigns at once would split the vote: let the first one finish.
            grace = state.now + state.me.timing.heartbeat_ns
            self.deadline_ns = max(self.deadline_ns, grace)
        term = request.term if granted else state.term
        state.out.send_after_sync(candidate, VoteReply(term=term, granted=granted, pre=True))

    def on_vote(self, candidate: NodeId, request: VoteRequest) -> None:
        """Give our one vote of this term, or repeat it (Raft §5.2, §5.4.1)."""
        state = self._state
        free = state.vote == NO_NODE and state.leader == NO_NODE
        granted = (
            request.term == state.term
            and (free or state.vote == candidate)
            and state.log.is_current(request.last_index, request.last_term)
        )
        if granted:
            state.vote = candidate
            self.rearm()
        state.out.send_after_sync(candidate, self._reply(granted=granted))

    def on_reply(self, voter: NodeId, reply: VoteReply) -> bool:
        """Count one vote, once per voter and of voters only; True when the election is won."""
        state = self._state
        awaited = Role.PRE_CANDIDATE if reply.pre else Role.CANDIDATE
        term = state.term + 1 if reply.pre and reply.granted else state.term
        if state.role is not awaited or reply.term != term:
            return False
        if is_voter(state.config, voter) and voter not in self._votes:
            self._votes[voter] = reply.granted
            if reply.granted:
                # An age that came late looks younger than it is: that only lengthens the wait.
                since = state.now - (reply.contact_age_ns or 0)
                self._contacts.append(Dating(since_ns=since, doubtful=reply.suspect))
        return self._count()

    def contacts(self) -> Dating:
        """The newest contact with a leader among the votes that elected this node, its own too."""
        return Dating(
            since_ns=max(contact.since_ns for contact in self._contacts),
            doubtful=any(contact.doubtful for contact in self._contacts),
        )

    def _reply(self, *, granted: bool) -> VoteReply:
        state = self._state
        return VoteReply(
            term=state.term,
            granted=granted,
            contact_age_ns=state.now - self.contact_ns if granted else None,
            suspect=state.clock.suspect,
        )

    def _pre_campaign(self) -> None:
        state = self._state
        state.become(Role.PRE_CANDIDATE)
        self._votes = {state.me.node: True}
        self._ask(
            VoteRequest(
                term=Term(state.term + 1),
                last_index=state.log.last_index,
                last_term=state.log.last_term,
                pre=True,
            )
        )
        self._count()

    def _count(self) -> bool:
        state = self._state
        result = vote_result(state.config, self._votes)
        if result is VoteResult.LOST:
            state.become(Role.FOLLOWER)
        if result is not VoteResult.WON:
            return False
        if state.role is Role.PRE_CANDIDATE:
            self.campaign()
            return False
        return True

    def _ask(self, request: VoteRequest) -> None:
        state = self._state
        for peer in sorted(all_voters(state.config) - {state.me.node}):
            state.out.send_after_sync(peer, request)
