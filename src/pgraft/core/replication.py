"""What a leader does: sends its log, counts acknowledgements, notices that it is alone.

Lives here: Raft §5.3, §5.4.2 (commit rule), CheckQuorum, leadership transfer (thesis §3.10).
Must not live here: how a follower takes an Append (see `messages`), rounds (see `reads`).
Start reading at `Replication.start`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pgraft.core.config import all_members, is_voter
from pgraft.core.progress import Progress
from pgraft.core.quorum import committed_index
from pgraft.core.state import State
from pgraft.core.types import (
    Append,
    AppendReply,
    Entry,
    EntryKind,
    EventKind,
    Grant,
    Heartbeat,
    Index,
    Nanos,
    NodeId,
    ProposalRefused,
    TimeoutNow,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A leadership transfer under way; it is given up at `deadline_ns`."""

    to: NodeId
    deadline_ns: Nanos


class Replication:
    """The leader's half of replication; empty on any other node."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.progress: dict[NodeId, Progress] = {}
        self.beat_due_ns: Nanos = state.now
        self.transfer: Transfer | None = None

    def start(self) -> None:
        """Take up leadership: one entry of our own term makes older ones committable (§5.4.2)."""
        state = self._state
        following = Index(state.log.last_index + 1)
        others = sorted(all_members(state.log.config) - {state.me.node})
        self.progress = {peer: Progress(following, state.now) for peer in others}
        self.transfer = None
        self.append(EntryKind.NOOP)

    def stop(self) -> None:
        """Leadership is over."""
        self.progress = {}
        self.transfer = None

    def append(self, kind: EntryKind, data: bytes = b"", grant: Grant | None = None) -> Entry:
        """Append one entry of our own term and send it on; it counts here once it is durable."""
        state = self._state
        entry = Entry(
            term=state.term,
            index=Index(state.log.last_index + 1),
            kind=kind,
            data=data,
            grant=grant,
        )
        state.log.append(entry)
        self._send_all(self.progress, even_empty=False)
        return entry

    def beat(self, round_number: int) -> None:
        """Send a heartbeat of this round to everybody; it carries only what the peer surely has."""
        state = self._state
        self.beat_due_ns = state.now + state.me.timing.heartbeat_ns
        for peer, progress in self.progress.items():
            commit = min(progress.match, state.log.commit)
            beat = Heartbeat(term=state.term, commit=commit, round=round_number)
            state.out.send(peer, beat)

    def on_append_reply(self, sender: NodeId, reply: AppendReply) -> bool:
        """Move the peer's progress; True if the commit index moved with it."""
        progress = self.progress.get(sender)
        if progress is None or reply.match > self._state.log.last_index:
            return False
        progress.heard_ns = self._state.now
        if not reply.ok:
            hint, _ = self._state.log.search(reply.hint_index, reply.hint_term)
            if progress.rejected(reply.rejected, hint):
                self._send(sender, progress, even_empty=True)
            return False
        moved = progress.acked(reply.match)
        committed = moved and self.advance_commit()
        # A commit it could not be told while it was blocked should not wait for the next beat.
        self._send(sender, progress, even_empty=progress.told < self._state.log.commit)
        self._continue_transfer()
        return committed

    def on_heartbeat_reply(self, sender: NodeId) -> bool:
        """The peer is alive: go on where a lost message would have left it waiting.

        False if this node does not lead, so that the answer means nothing.
        """
        progress = self.progress.get(sender)
        if progress is None:
            return False
        progress.heard_ns = self._state.now
        progress.resume()
        if progress.match < self._state.log.last_index:
            self._send(sender, progress, even_empty=True)
        return True

    def on_link(self, peer: NodeId) -> None:
        """The link to the peer changed: what was in flight is lost."""
        progress = self.progress.get(peer)
        if progress is not None:
            progress.probe()
            self._send(peer, progress, even_empty=True)

    def advance_commit(self) -> bool:
        """Commit what a quorum has durable, if it is of our own term (Raft §5.4.2, Figure 8)."""
        log = self._state.log
        acked: dict[NodeId, int] = {peer: p.match for peer, p in self.progress.items()}
        acked[self._state.me.node] = log.writes.stable
        index = Index(committed_index(log.config, acked))
        if log.term_at(index) != self._state.term or not log.commit_to(index):
            return False
        self._send_all(self.progress, even_empty=True)
        return True

    def failing(self) -> str:
        """Why this leader must step down now, or "": no quorum heard for E, or its disk hangs."""
        state = self._state
        heard: dict[NodeId, int] = {peer: p.heard_ns for peer, p in self.progress.items()}
        heard[state.me.node] = state.now
        limit = state.me.timing.election_ns
        if state.now - committed_index(state.log.config, heard) > limit:
            return "no quorum"
        if state.log.writes.stalled_ns(state.now) > limit:
            return "disk stalled"
        return ""

    def forgive_silence(self) -> None:
        """After our own pause nobody could be heard: their silence starts counting now."""
        for progress in self.progress.values():
            progress.heard_ns = self._state.now

    def start_transfer(self, to: NodeId) -> None:
        """Hand leadership to `to` once its log is complete; ProposalRefused if it cannot lead."""
        state = self._state
        if to not in self.progress or not is_voter(state.log.config, to):
            raise ProposalRefused("not_a_voter", state.me.node)
        deadline = state.now + state.me.timing.election_ns
        self.transfer = Transfer(to=to, deadline_ns=deadline)
        state.event(EventKind.TRANSFER_STARTED, str(to))
        if self.progress[to].match < state.log.last_index:
            # What is under way to it may be lost; a transfer should not wait for the next beat.
            self.progress[to].probe()
            self._send(to, self.progress[to], even_empty=True)
        self._continue_transfer()

    def check_transfer(self) -> None:
        """Give up a transfer that took longer than an election timeout (thesis §3.10)."""
        state = self._state
        if self.transfer is not None and state.now >= self.transfer.deadline_ns:
            state.event(EventKind.TRANSFER_ABORTED, str(self.transfer.to))
            self.transfer = None

    def _continue_transfer(self) -> None:
        state = self._state
        if self.transfer is None:
            return
        if self.progress[self.transfer.to].match == state.log.last_index:
            state.out.send(self.transfer.to, TimeoutNow(term=state.term))

    def _send_all(self, peers: Iterable[NodeId], *, even_empty: bool) -> None:
        for peer in peers:
            self._send(peer, self.progress[peer], even_empty=even_empty)

    def _send(self, peer: NodeId, progress: Progress, *, even_empty: bool) -> None:
        # Ends because every Append sent blocks a probe or fills the window by one.
        state = self._state
        while not progress.blocked:
            entries = state.log.slice_from(progress.next)
            if not entries and not even_empty:
                return
            even_empty = False
            prev = Index(progress.next - 1)
            prev_term = state.log.term_at(prev)
            assert prev_term is not None
            state.out.send(
                peer,
                Append(
                    term=state.term,
                    prev_index=prev,
                    prev_term=prev_term,
                    commit=state.log.commit,
                    entries=entries,
                ),
            )
            progress.sent(entries[-1].index if entries else None, state.log.commit)
