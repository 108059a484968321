"""The world of a failover story: state, clock, lease and what was heard, and the words for it.

Start reading at `World`; the verbs are in `tests.support.policy_script`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ramd.domain.decision import ClusterView, Directive, LeaseView, Memory, SealAttempt
from ramd.domain.lsn import parse_lsn
from ramd.domain.model import ClusterState
from ramd.domain.observation import (
    Attempt,
    DataKind,
    FenceKind,
    Heard,
    Position,
    ServerRole,
    ServerState,
)
from ramd.policy.memory import remember

MS = 1_000_000
SYSTEM = "7000000000000000001"
BOOT_NS = 1_000_000 * MS


@dataclass
class World:
    """What the story has brought about so far."""

    state: ClusterState = field(default_factory=ClusterState)
    now_ns: int = BOOT_NS
    me: int = 3
    term: int = 5
    since_ns: int = BOOT_NS
    lease: LeaseView = field(default_factory=lambda: LeaseView(may_move_at_ns=None))
    heard: dict[int, Heard] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)
    sealing: SealAttempt | None = None
    attempts: int = 0
    transfer_ns: int = 0
    memory: Memory = field(default_factory=Memory)
    directive: Directive | None = None

    def view(self) -> ClusterView:
        """What the coordinator sees now; nodes that are not silent were heard just now."""
        for node_id, heard in self.heard.items():
            if node_id not in self.silent:
                self.heard[node_id] = self._again(heard)
        view = ClusterView(
            now_ns=self.now_ns,
            me=self.me,
            term=self.term,
            coordinator_since_ns=self.since_ns,
            started_ns=BOOT_NS,
            state=self.state,
            heard=dict(self.heard),
            lease=self.lease,
            sealing=self.sealing,
            next_attempt=self.attempts + 1,
            last_transfer_ns=self.transfer_ns,
            memory=self.memory,
        )
        self.memory = remember(view)
        return replace(view, memory=self.memory)

    def _again(self, heard: Heard) -> Heard:
        """The same, heard now: what was a moment ago is longer ago."""
        seen, fed_ms = heard.observation, heard.observation.fed_ms
        if fed_ms is not None:
            seen = replace(seen, fed_ms=fed_ms + (self.now_ns - heard.received_ns) // MS)
        return Heard(observation=seen, received_ns=self.now_ns)


def position(text: str) -> Position:
    """`0/300@2`: LSN and timeline."""
    lsn, _, timeline = text.partition("@")
    return Position(timeline=int(timeline), lsn=parse_lsn(lsn))


def attempt(text: str) -> Attempt:
    """`5.1`: term and number."""
    term, _, number = text.partition(".")
    return Attempt(term=int(term), number=int(number))


_UP = {"data": DataKind.CLUSTER, "system_id": SYSTEM}
FLAGS: dict[str, dict[str, Any]] = {
    "blank": {"data": DataKind.ABSENT, "state": ServerState.STOPPED, "role": None},
    "foreign": {"data": DataKind.FOREIGN, "state": ServerState.STOPPED, "role": None},
    "never": {"data": DataKind.ABSENT, "state": ServerState.UNKNOWN, "role": None},
    "primary": _UP | {"state": ServerState.RUNNING, "role": ServerRole.PRIMARY, "accepting": True},
    "replica": _UP | {"state": ServerState.RUNNING, "role": ServerRole.REPLICA, "accepting": True},
    "crashed": _UP | {"state": ServerState.CRASHED, "role": None, "accepting": False},
    "stopped": _UP | {"state": ServerState.STOPPED, "role": None, "accepting": False},
    "hung": _UP | {"state": ServerState.HUNG, "accepting": False},
    "starting": _UP | {"state": ServerState.STARTING, "role": None, "accepting": False},
}


def changed(key: str, value: str) -> dict[str, Any]:
    match key:
        case "at":
            return {"position": position(value) if value != "none" else None}
        case "up":
            return {"upstream": int(value) or None}
        case "opened":
            return {"epoch_opened": int(value)}
        case "fed":
            return {"fed_ms": int(value)}
        case "failures":
            return {"failures": int(value)}
        case "fence":
            return {"fence": FenceKind(value)}
        case _:
            return {"system_id": value}
