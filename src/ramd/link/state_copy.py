"""This node's copy of the replicated state: the log applied entry by entry.

Must not live here: what a command means (`ramd.state`). Start reading at `StateCopy.apply`.
"""

from __future__ import annotations

from collections.abc import Callable

from pgraft.core.types import Entry, EntryKind, Snapshot
from ramd import events
from ramd.domain.model import ClusterState
from ramd.state.apply import apply, apply_grant_explained
from ramd.state.commands import UndecodableError, decode, decode_grant_payload
from ramd.state.wire import decode_state, encode_state


class StateCopy:
    """`state` is the latest applied here; `term` that of the last applied entry; no lease was ever
    granted for longer than `longest_ttl_ns`, as far as this log goes.

    `changed` is called after each entry, with whether it was a grant.
    """

    def __init__(self, changed: Callable[[bool], None]) -> None:
        self.state = ClusterState()
        self.term = 0
        self.longest_ttl_ns = 0
        self._changed = changed

    def apply(self, entry: Entry) -> None:
        """Take the next committed entry. An entry that cannot be read changes nothing, here and
        on every other node."""
        self.term = int(entry.term)
        try:
            self.state = self._after(entry)
        except UndecodableError as error:
            events.emit(events.EntryIgnored(index=int(entry.index), why=str(error)))
        granted_ns = entry.grant.ttl_ns if entry.grant is not None else 0
        changed_ns = entry.ttl.ttl_ns if entry.ttl is not None else 0
        self.longest_ttl_ns = max(self.longest_ttl_ns, granted_ns, changed_ns)
        self._changed(entry.kind is EntryKind.GRANT)

    def snapshot(self) -> bytes:
        """The whole state, as `restore` takes it."""
        return encode_state(self.state)

    def restore(self, snapshot: Snapshot) -> None:
        """Take the state of a snapshot in the place of the present one. Raises UndecodableError:
        a member that cannot read its group's state must not go on."""
        self.term = int(snapshot.term)
        self.longest_ttl_ns = max(self.longest_ttl_ns, snapshot.lease.longest_ns)
        self.state = decode_state(snapshot.data) if snapshot.data else ClusterState()
        self._changed(True)

    def _after(self, entry: Entry) -> ClusterState:
        index, grant = int(entry.index), entry.grant
        if entry.kind is EntryKind.COMMAND:
            return apply(self.state, decode(entry.data), index)
        if entry.kind is EntryKind.GRANT and grant is not None:
            payload = decode_grant_payload(grant.payload)
            applied = apply_grant_explained(
                self.state, int(grant.holder), grant.epoch, payload, index
            )
            if applied.refusal:
                # The coordinator asks before it appends: this is a fault of somebody's, not news.
                why = f"the grant of epoch {grant.epoch} is refused: {applied.refusal}"
                events.emit(events.EntryIgnored(index=index, why=why))
            return applied.state
        return self.state
