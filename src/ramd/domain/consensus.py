"""The one interface between RAMD and the group: what ramd needs of consensus, nothing more.

pgraft implements it through `ramd.link`; it stays possible over another replicated log.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from ramd.domain.decision import LeaseView, Voting
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState
from ramd.domain.observation import Position
from ramd.domain.raft import RaftFacts

Handler: TypeAlias = Callable[[int, bytes], Awaitable[bytes]]
"""(sender's node id, payload) → answer."""

REASON_CHARS_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatus:
    """A picture of the group for people, the loop and metrics."""

    me: int
    coordinator: int | None
    is_coordinator: bool
    ready: bool
    """Coordinator only: an entry of its own term is applied."""
    term: int
    commit_index: int
    applied_index: int
    has_quorum: bool
    coordinator_since_ns: int = 0
    loop_lag_ms: int = 0
    raft_role: str = ""
    """This member's part in Raft: follower, candidate, leader or learner (Raft's words)."""
    messages_taken: int = 0
    heartbeats_sent: int = 0
    elections_begun: int = 0
    """All three since the daemon started."""
    raft: RaftFacts | None = None
    """More of the same member, for people and metrics; None: a stand-in that has none."""
    voting: Voting = field(default_factory=Voting)
    """The committed configuration of the group, as this member knows it."""
    removed: str = ""
    """How it is known that this member was removed from its group; '' if it was not."""
    in_flight: bool = False
    """The log holds entries that are not applied here yet: what they will make of the replicated
    state is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberChange:
    """What a change of the group's own configuration wants; all of it or nothing."""

    promote: tuple[int, ...] = ()
    """Learners that get a vote."""
    remove: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseEvidence:
    """Why a holder gave an epoch back, and where its WAL ends (None: not known).

    Sent with `Consensus.release`; the coordinator sees it again in its `LeaseView`. `holders`:
    nodes that have confirmed all WAL to `end`. `stands_by`: the server runs on, fenced for good in
    this epoch, and can resume in the next. `spent`: phases of a switchover so far, ms. `doubt`: why
    its WAL is not to be fetched by others.
    """

    reason: str
    end: Position | None = None
    holders: tuple[int, ...] = ()
    stands_by: bool = False
    spent: tuple[tuple[str, int], ...] = ()
    doubt: str = ""

    def encode(self) -> bytes:
        end = self.end and {"timeline": self.end.timeline, "lsn": self.end.lsn}
        return json.dumps(
            {
                "reason": self.reason[:REASON_CHARS_MAX],
                "end": end,
                "holders": self.holders,
                "stands_by": self.stands_by,
                "spent": self.spent,
                "doubt": self.doubt[:REASON_CHARS_MAX],
            }
        ).encode()

    @classmethod
    def decode(cls, raw: bytes) -> ReleaseEvidence:
        """Raises ValueError on anything that `encode` did not write."""
        try:
            data = json.loads(raw)
            end = data["end"]
            return cls(
                reason=str(data["reason"])[:REASON_CHARS_MAX],
                end=None
                if end is None
                else Position(timeline=int(end["timeline"]), lsn=Lsn(int(end["lsn"]))),
                holders=tuple(int(node) for node in data.get("holders", ())),
                stands_by=bool(data.get("stands_by", False)),
                spent=tuple((str(what), int(ms)) for what, ms in data.get("spent", ())),
                doubt=str(data.get("doubt", ""))[:REASON_CHARS_MAX],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the evidence of a release: {error!r}") from error


PROPOSE_TIMEOUT_S = 5.0
"""How long whoever changes the group's record by itself waits for a commit, and for what was
committed before: several elections, and shorter than a client's patience with a request."""


class Consensus(Protocol):
    """One member's handle on the group. All calls from the control loop's thread."""

    def status(self) -> GroupStatus: ...

    def state(self) -> ClusterState:
        """Latest state applied on this node."""

    async def propose(self, command: bytes, *, timeout_s: float) -> None:
        """Committed and applied here. Raises Unavailable, OutcomeUnknown, Refused."""

    def grant(self, holder: int, epoch: int, payload: bytes) -> None:
        """Coordinator: append a grant. Raises Refused with the reason if S3 forbids it now."""

    async def read_barrier(self, *, timeout_s: float) -> None:
        """Afterwards `state()` includes everything committed before the call."""

    async def change(self, change: MemberChange, *, timeout_s: float) -> None:
        """In effect and committed, any joint phase left. Raises Refused with the reason by name,
        Unavailable, OutcomeUnknown."""

    def transfer(self, node_id: int) -> None: ...

    # lease, holder's half
    def lease(self) -> tuple[int, int]:
        """(epoch, deadline by own BOOTTIME ns; 0 = none) of this node's lease."""

    def release(self, epoch: int, evidence: bytes) -> None:
        """Latch and release `epoch`; repeated until the epoch moves. The caller has stored the
        latch durably before. `evidence` is an encoded `ReleaseEvidence`."""

    # lease, coordinator's half
    def lease_view(self) -> LeaseView: ...

    def seal(self, epoch: int) -> None:
        """Answer no renewal of `epoch` from now on, until `unseal`."""

    def unseal(self) -> None: ...

    # the channel between daemons
    def cast(self, node_id: int, method: str, payload: bytes) -> None: ...

    async def call(
        self, node_id: int, method: str, payload: bytes, *, timeout_s: float
    ) -> bytes: ...

    def register(self, method: str, handler: Handler) -> None: ...
