"""What a checker may hear; the simulated group calls every hook of every checker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgraft.core.types import Entry, HardState, Message, NodeId, Term
from tests.support.raft_store import Image


class CheckFailed(AssertionError):
    """A property that must always hold was seen broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """`node`, being in `term`, applies `entry`; `disks`: what is durable on every voter now."""

    node: NodeId
    term: Term
    entry: Entry
    disks: Sequence[Image]


class Checker:
    """Hears everything, objects to nothing. Times are true simulated ns, on no node's clock."""

    def on_leader(self, node: NodeId, term: Term, log: Sequence[Entry]) -> None:
        """`node` has just become leader; `log` is what it holds."""

    def on_entries(self, node: NodeId, prev_term: Term, entries: Sequence[Entry]) -> None:
        """`node` writes `entries` after one of term `prev_term`."""

    def on_apply(self, applied: Applied) -> None:
        """An entry is applied somewhere."""

    def on_durable(self, node: NodeId, hard_state: HardState) -> None:
        """This hard state is on the disk of `node`."""

    def on_send(self, node: NodeId, to: NodeId, message: Message, disk: Image) -> None:
        """`node` sends a vote, a vote request or an acknowledgement; `disk` is its own."""

    def on_restart(self, node: NodeId) -> None:
        """A new process of `node` starts; it will apply the log from the beginning."""

    def on_lease(self, node: NodeId, epoch: int, now: int, until: int) -> None:
        """`node` learns that it may act as primary of `epoch` from now until then."""

    def on_fence(self, node: NodeId, epoch: int, now: int) -> None:
        """`node` gave up acting as primary of `epoch`."""

    def on_read_asked(self, node: NodeId, context: int) -> None:
        """`node` asks for a linearizable read."""

    def on_read_done(self, node: NodeId, context: int, index: int) -> None:
        """It may be served at `index`."""
