"""What a leader does: sends its log, counts acknowledgements, notices that it is alone.

Lives here: Raft §5.3, §5.4.2 (commit rule), §7 (snapshots to peers that lag), CheckQuorum. Must not
live here: how a follower takes an Append (see `messages`), rounds (see `reads`), handing leadership
over (see `handover`). Start reading at `Replication.start`.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgraft.core.config import all_members
from pgraft.core.limits import LEAVING_ELECTIONS, SNAPSHOT_RESEND_ELECTIONS
from pgraft.core.log import search
from pgraft.core.progress import Progress
from pgraft.core.promises import Promises
from pgraft.core.quorum import committed_index
from pgraft.core.state import State
from pgraft.core.types import (
    NO_ORIGIN,
    Append,
    AppendReply,
    Config,
    Entry,
    EntryKind,
    EventKind,
    Grant,
    Heartbeat,
    HeartbeatReply,
    Index,
    InstallSnapshot,
    Nanos,
    NodeId,
    Origin,
    TtlChange,
)


class Replication:
    """The leader's half of replication; empty on any other node.

    `progress` holds the members, and for a while those that have just ceased to be: they learn
    from the log that they are gone. Nothing that they say is counted.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self.progress: dict[NodeId, Progress] = {}
        self.promises = Promises()
        self.beat_due_ns: Nanos = state.now
        self._round = 0
        self._dismissed_ns: Nanos | None = None

    def start(self) -> None:
        """Take up leadership: one entry of our own term makes older ones committable (§5.4.2)."""
        state = self._state
        following = Index(state.log.last_index + 1)
        configs = state.log.configs
        # Who leaves by a configuration that is not committed yet must hear of it, too.
        members = all_members(configs.effective) | all_members(configs.at(state.log.commit)[1])
        others = sorted(members - {state.me.node})
        self.progress = {peer: Progress(following, state.now) for peer in others}
        self.promises.new_leadership()
        self._dismissed_ns = None
        self.append(EntryKind.NOOP)

    def stop(self) -> None:
        """Leadership is over."""
        self.progress = {}

    def append(
        self,
        kind: EntryKind,
        *,
        data: bytes = b"",
        config: Config | None = None,
        grant: Grant | None = None,
        ttl: TtlChange | None = None,
        origin: Origin = NO_ORIGIN,
    ) -> Entry:
        """Append one entry of our own term and send it on; it counts here once it is durable."""
        state = self._state
        if config is not None:
            self._admit(config)
        entry = Entry(
            term=state.term,
            index=Index(state.log.last_index + 1),
            kind=kind,
            data=data,
            config=config,
            grant=grant,
            ttl=ttl,
            origin=origin,
        )
        state.log.append(entry)
        self._send_all(self.progress, even_empty=False)
        return entry

    def beat(self, round_number: int) -> None:
        """Send a heartbeat of this round to everybody; it carries only what the peer surely has,
        which is nothing if it was caught with less than it had acknowledged."""
        state = self._state
        self._round = round_number
        self.beat_due_ns = state.now + state.me.timing.heartbeat_ns
        for peer, progress in self.progress.items():
            sure = progress.match if peer not in self.promises.regressed else Index(0)
            commit = min(sure, state.log.commit)
            beat = Heartbeat(term=state.term, commit=commit, round=round_number)
            state.out.send(peer, beat)

    def on_append_reply(self, sender: NodeId, reply: AppendReply) -> bool:
        """Move the peer's progress; True if the commit index moved with it."""
        progress, log = self.progress.get(sender), self._state.log
        if progress is None or reply.match > log.last_index:
            return False
        progress.heard_ns = self._state.now
        if not reply.ok:
            hint, _ = search(log, reply.hint_index, reply.hint_term)
            if progress.rejected(reply.rejected, hint):
                self._send(sender, progress, even_empty=True)
            return False
        moved = progress.acked(reply.match)
        term = log.term_at(reply.match)
        if term is not None:
            self.promises.acked(sender, term, reply.match, self._round)
        committed = moved and self.advance_commit()
        # A commit it could not be told while it was blocked should not wait for the next beat.
        self._send(sender, progress, even_empty=progress.told < log.commit)
        return committed

    def on_heartbeat_reply(self, sender: NodeId, reply: HeartbeatReply) -> bool:
        """The peer is alive: go on where a lost message would have left it waiting.

        False if its answer means nothing: this node does not lead, or the peer was caught with less
        than it had acknowledged.
        """
        progress = self.progress.get(sender)
        if progress is None:
            return False
        last = reply.last_index
        if last is not None and self.promises.heard(sender, reply.round, last):
            self._state.event(EventKind.REGRESSED, str(sender))
        progress.heard_ns = self._state.now
        progress.resume(self._state.now)
        if progress.match < self._state.log.last_index:
            self._send(sender, progress, even_empty=True)
        return sender not in self.promises.regressed

    def on_link(self, peer: NodeId) -> None:
        """The link to the peer changed: what was in flight is lost."""
        progress = self.progress.get(peer)
        if progress is not None:
            progress.probe()
            self._send(peer, progress, even_empty=True)

    def advance_commit(self) -> bool:
        """Commit what a quorum has durable, if it is of our own term (Raft §5.4.2, Figure 8)."""
        log = self._state.log
        acked: dict[NodeId, int] = {peer: p.match for peer, p in self.counted()}
        acked[self._state.me.node] = log.writes.stable
        index = Index(committed_index(self._state.config, acked))
        if log.term_at(index) != self._state.term or not log.commit_to(index):
            return False
        self._send_all(self.progress, even_empty=True)
        return True

    def failing(self) -> str:
        """Why this leader must step down now, or "": no quorum heard for E, or its disk hangs."""
        state = self._state
        heard: dict[NodeId, int] = {peer: p.heard_ns for peer, p in self.counted()}
        heard[state.me.node] = state.now
        limit = state.me.timing.election_ns
        if state.now - committed_index(state.config, heard) > limit:
            return "no quorum"
        stalled_ns = state.log.writes.stalled_ns(state.now)
        if stalled_ns > limit:
            return f"own disk stalled for {stalled_ns // 1_000_000} ms"
        return ""

    def forgive_silence(self) -> None:
        """After our own pause nobody could be heard: their silence starts counting now."""
        for progress in self.progress.values():
            progress.heard_ns = self._state.now

    def dismiss_former(self) -> None:
        """Stop sending to former members a while after the change that removed them committed."""
        state = self._state
        former = [peer for peer in self.progress if peer not in all_members(state.config)]
        if not former or state.log.configs.since > state.log.commit:
            self._dismissed_ns = None
        elif self._dismissed_ns is None:
            self._dismissed_ns = state.now + LEAVING_ELECTIONS * state.me.timing.election_ns
        elif state.now >= self._dismissed_ns:
            for peer in former:
                del self.progress[peer]

    def counted(self) -> Iterable[tuple[NodeId, Progress]]:
        """Peers whose word is still good. Who is no voter counts for nothing in any quorum."""
        regressed = self.promises.regressed
        return [(peer, p) for peer, p in self.progress.items() if peer not in regressed]

    def _admit(self, config: Config) -> None:
        """Send to the members of a configuration that is about to be appended.

        A new one begins with nothing, also under the id of a former one that is still being told
        that it is gone.
        """
        state = self._state
        following = Index(state.log.last_index + 1)
        known = self.progress.keys() & all_members(state.config)
        for peer in sorted(all_members(config) - {state.me.node} - known):
            self.progress[peer] = Progress(following, state.now)

    def _send_all(self, peers: Iterable[NodeId], *, even_empty: bool) -> None:
        for peer in peers:
            self._send(peer, self.progress[peer], even_empty=even_empty)

    def _send(self, peer: NodeId, progress: Progress, *, even_empty: bool) -> None:
        # Ends because every Append sent blocks a probe or fills the window by one.
        state = self._state
        while not progress.blocked:
            prev = Index(progress.next - 1)
            if prev < state.log.base:
                self._send_snapshot(peer, progress)
                return
            prev_term = state.log.term_at(prev)
            assert prev_term is not None
            entries = state.log.slice_from(progress.next)
            if not entries and not even_empty:
                return
            even_empty = False
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

    def _send_snapshot(self, peer: NodeId, progress: Progress) -> None:
        """What the peer lacks is not in memory any more (Raft §7)."""
        state, snapshot = self._state, self._state.log.snapshot
        assert progress.next <= state.log.base <= snapshot.index
        until = state.now + SNAPSHOT_RESEND_ELECTIONS * state.me.timing.election_ns
        progress.sent_snapshot(snapshot.index, until)
        state.out.send(peer, InstallSnapshot(term=state.term, snapshot=snapshot))
        state.event(EventKind.SNAPSHOT_SENT, str(peer))
