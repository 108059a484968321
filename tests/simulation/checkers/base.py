"""What happens in a simulated group, as values, and who listens to it.

Lives here: the events, `Checker`, `CheckFailed`, `Watch`. Must not live here: what a property means
(one file each). Start reading at `Checker`. Times are true simulated ns, on no node's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

from pgraft.core.types import Config, Entry, HardState, Index, Message, NodeId, Snapshot, Term


class CheckFailed(AssertionError):
    """A property that must always hold was seen broken."""


class Terms(Protocol):
    """A log of which only the terms matter, in memory or on a disk."""

    @property
    def last_index(self) -> Index:
        """Index of the newest entry, or of the snapshot if none follows it."""
        ...

    def term_at(self, index: Index) -> Term | None:
        """Term of the entry at `index`; None if there is none, or no longer one."""
        ...


class Disk(Terms, Protocol):
    """What is durable on one node."""

    hard_state: HardState

    @property
    def base(self) -> Index:
        """Up to here a snapshot stands for the entries."""
        ...


Disks: TypeAlias = Mapping[NodeId, Disk]


class Started(NamedTuple):
    """A new process of `node` begins with what `disk` holds; it has applied up to `disk.base`."""

    node: NodeId
    disk: Disk


class Led(NamedTuple):
    """`node` has just become leader of `term` by `config`; it has applied up to `applied`.

    `possible`: the newest configuration it knows to be committed, and all after it.
    """

    node: NodeId
    term: Term
    log: Terms
    applied: Index
    config: Config
    possible: tuple[Config, ...]
    disks: Disks


class Wrote(NamedTuple):
    """`node` hands a batch to its disk: first a cut, then entries after one of `prev_term`."""

    node: NodeId
    leading: bool
    cut: Index | None
    prev_term: Term | None
    entries: tuple[Entry, ...]
    disk: Disk


class Configured(NamedTuple):
    """A configuration entered the log of `node` after `before`, which stands at `before_index`.

    `leading`: by its own decision as leader, with `commit` known to it.
    """

    node: NodeId
    leading: bool
    before: Config
    before_index: Index
    after: Config
    commit: Index


class Synced(NamedTuple):
    """This is what `disk` of `node` holds now."""

    node: NodeId
    disk: Disk


class Sent(NamedTuple):
    """`node` sends a vote, a vote request or an acknowledgement; `disk` is its own."""

    node: NodeId
    to: NodeId
    message: Message
    disk: Disk


class Acked(NamedTuple):
    """The leader `node` of `term` believes that `disk` of `peer` agrees with its log to `match`."""

    node: NodeId
    term: Term
    log: Terms
    peer: NodeId
    match: Index
    next: Index
    disk: Disk


class Applied(NamedTuple):
    """`node`, being in `term`, applies `entry` while `config` is in effect there."""

    node: NodeId
    term: Term
    leading: bool
    entry: Entry
    config: Config
    disks: Disks


class Committed(NamedTuple):
    """The leader `node` of `term` has applied a batch that ends with an entry of `last_term`."""

    node: NodeId
    term: Term
    last_term: Term


class Snapped(NamedTuple):
    """`node` has taken a snapshot of what it applied, or (`installed`) applies one it was sent.

    `digest` names the state in it; `before` is what the node had applied before.
    """

    node: NodeId
    snapshot: Snapshot
    digest: int
    installed: bool
    before: Index


class Leased(NamedTuple):
    """The server of `node` may act as primary of `epoch` from now until then."""

    node: NodeId
    epoch: int
    now: int
    until: int


class Fenced(NamedTuple):
    """`node` gave up acting as primary of `epoch`."""

    node: NodeId
    epoch: int
    now: int


class ReadAsked(NamedTuple):
    """`node` asks for a linearizable read."""

    node: NodeId
    context: int


class ReadDone(NamedTuple):
    """It may be served once `needed` is applied; None: it could not be confirmed."""

    node: NodeId
    context: int
    needed: Index | None


Handler: TypeAlias = Callable[[Any], None]


class Checker:
    """Hears the events it lists and raises `CheckFailed`. One object serves one run."""

    def handlers(self) -> Mapping[type, Handler]:
        """Which method hears which event."""
        return {}


class Watch:
    """Tells each event to those who want to hear it."""

    def __init__(self, checkers: Iterable[Checker]) -> None:
        self._handlers: dict[type, list[Handler]] = {}
        for checker in checkers:
            for kind, handler in checker.handlers().items():
                self._handlers.setdefault(kind, []).append(handler)

    def emit(self, event: NamedTuple) -> None:
        """Something happened; CheckFailed if it must not."""
        for handler in self._handlers.get(type(event), ()):
            handler(event)
