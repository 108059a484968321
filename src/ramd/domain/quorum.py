"""Going on without a majority that is lost for good: what a person asks for, and what it costs.

Lives here: frozen values only. What is checked and done is in `ramd.recovery`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ramd.domain.observation import Position


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverRequest:
    """Make this node alone the group. Nothing is done unless `apply`; then `cluster_name` must be
    the cluster's own and `confirmed_off` exactly the other voters, by node id.

    `learner`: also if this node had no vote, and so may lack what was committed.
    """

    apply: bool = False
    cluster_name: str = ""
    confirmed_off: tuple[int, ...] = ()
    learner: bool = False
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostNode:
    """Another member as this node last knew it; it will be refused by the new group for ever."""

    node_id: int
    name: str
    voter: bool
    answers: bool
    """This daemon has a connection to it now: it is not off."""
    contact_age_ms: int | None
    """Since Raft heard it; None: never by this daemon."""
    seen_age_ms: int | None
    position: Position | None
    """The end of its WAL when it was last heard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverPlan:
    """What a recovery on this node would start from, and what it may lose."""

    node_id: int
    voter: bool
    cluster_name: str
    epoch: int
    primary: int | None
    """Who was primary last."""
    term: int
    last_index: int
    commit_index: int
    """Entries after it may or may not have been committed: all of them count from then on."""
    contact_age_ms: int | None
    """Since this node last heard any other voter; what they agreed on after that is lost."""
    wait_ms: int
    """So long nothing is done, so that no lease of the old group is left."""
    position: Position | None
    """The end of this node's own WAL."""
    best: LostNode | None
    """Who held the most WAL when it was last heard, if that is more than this node holds."""
    lost: tuple[LostNode, ...]

    @property
    def uncertain_entries(self) -> int:
        """Entries of this log of which it is not known whether they were committed."""
        return self.last_index - self.commit_index

    @property
    def lost_bytes_min(self) -> int | None:
        """WAL that another node is known to have held and this one does not; None: not known,
        because nobody else's position is, or because they are on different timelines."""
        if self.position is None:
            return None
        if self.best is None:
            return 0 if any(node.position is not None for node in self.lost) else None
        theirs = self.best.position
        assert theirs is not None
        if theirs.timeline != self.position.timeline:
            return None
        return theirs.lsn - self.position.lsn


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverResult:
    """`plan` is how it stood before. If `done`: the new group, and who is primary in it (None:
    nobody yet; the coordinator goes on by its rules)."""

    plan: RecoverPlan
    done: bool = False
    cluster_id: str = ""
    primary: int | None = None
    epoch: int = 0
    took_ms: int = 0
