"""What the parts of a simulated group need of each other.

Lives here: `World`, the seam around time, network, checkers and counters; `Plan`, what a seed draws
before anything runs. Must not live here: behaviour of hosts, clients, faults.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pgraft.core.types import NodeId, Origin, Outgoing, Timing
from tests.simulation.checkers.base import Disks, Watch
from tests.support.raft_history import Histories
from tests.support.raft_network import Network

if TYPE_CHECKING:
    from tests.support.raft_host import Host

MS = 1_000_000
QUICK = Timing(
    heartbeat_ns=40 * MS,
    election_ns=200 * MS,
    lease_ttl_ns=600 * MS,
    drift=0.02,
    scheduling_ns=20 * MS,
)
"""Everything sooner, and clocks that differ more: finds the same faults in less time."""
DEFAULT = Timing()
"""As shipped."""


HUNT = ("hunt", "hunt", "bad_network", "release", "seal", "pause")
"""The menu of a seed that goes for the lease alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One seed's run. `chaos`: how many election timeouts the storm lasts."""

    seed: int
    timing: Timing
    size: int
    wal: bool
    chaos: int
    menu: tuple[str, ...] | None = None
    """Which faults; None: drawn."""
    churn: bool = True
    """Whether members come and go."""
    segment_bytes: int = 1 << 14
    """Of the log's segments, where it is the real one."""

    @property
    def e_ns(self) -> int:
        """The election timeout, the unit in which everything else is measured."""
        return self.timing.election_ns


def drawn(seed: int, *, wal: bool | None = None, chaos: int | None = None) -> Plan:
    """The plan of a seed: a function of its number alone, unless told otherwise."""
    rng = random.Random(f"plan {seed}")
    timing = rng.choice((QUICK, DEFAULT))
    size = rng.choice((3, 3, 5))
    log = rng.random() < 0.5
    length = rng.choice((20, 40, 80))
    return Plan(
        seed=seed,
        timing=timing,
        size=size,
        wal=log if wal is None else wal,
        chaos=length if chaos is None else chaos,
        churn=rng.random() < 0.7,
        menu=HUNT if rng.random() < 0.2 else None,
        segment_bytes=rng.choice((1 << 12, 1 << 14, 1 << 16)),
    )


class World(Protocol):
    """The simulation around a host."""

    plan: Plan
    now: int
    rng: random.Random
    counts: Counter[str]
    watch: Watch
    network: Network
    histories: Histories
    hosts: dict[NodeId, Host]

    def later(self, delay_ns: int, action: Callable[[], object]) -> None:
        """Run an action after a delay in true time."""
        ...

    def post(self, sender: Host, outgoing: Outgoing) -> None:
        """Hand a message to the network."""
        ...

    def ask(self, sender: NodeId, to: NodeId, data: bytes, origin: Origin) -> None:
        """Send a client's command from one member to another."""
        ...

    def disks(self) -> Disks:
        """What is durable on each node."""
        ...

    def links(self, node: NodeId, up: bool) -> None:
        """The connections of a node broke, or may be made again: hints to its peers."""
        ...
