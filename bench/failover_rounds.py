"""One driver for every stack: five faults, from rest to rest, and what its clients saw of them.

The clients know no manager: two writers per host, one that gives up on a statement after two
seconds and one that never does, so that an answer which a thawed host gives late is seen as well.
Start reading at `Visit`.
"""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bench.failover_stacks import NODES, Stack
from bench.figures import load_average
from bench.outside import at_rest, commits_wait, picture
from tools.freezing import Frozen
from tools.local_cluster import ClusterError, wait_until
from tools.local_processes import send
from tools.writers import Ack, Writers, present

CRASH: Final = "server crash"
KILLED: Final = "node killed"
FROZEN: Final = "node frozen"
AGENT: Final = "agent frozen"
SWITCH: Final = "switchover"
FAULTS: Final = (CRASH, KILLED, FROZEN, AGENT, SWITCH)
DEADLINE_S: Final = 240.0
SETTLE_S: Final = 120.0
FIRST_ROWS: Final = 50
FLOWING_ROWS: Final = 20
DYING_S: Final = 0.2
"""Backends of a killed postmaster may acknowledge a little longer."""
SLICE_S: Final = 0.1
"""Two nodes acknowledge at the same time if both did so within one slice of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the clients saw of one fault."""

    outage_ms: float
    late_acks: int
    """Rows that the old primary acknowledged between the new one's first and last."""
    overlap_s: float
    after: int
    """The node that acknowledged last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One fault of one stack, or why there is none."""

    stack: str
    fault: str
    number: int
    outage_ms: float = 0.0
    lost: int = 0
    late_acks: int = 0
    overlap_s: float = 0.0
    rejoin_s: float = 0.0
    before: int = 0
    after: int = 0
    load: float = 0.0
    failed: str = ""

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long a freeze lasts, seconds, and whether every fault waits for synchronous commits."""

    node_s: float = 60.0
    agent_s: float = 90.0
    synchronous: bool = False


def seen_by(acks: Sequence[Ack], old: int, begun_s: float) -> Seen:
    """Judge the acknowledgements of a round whose fault hit `old` at `begun_s`.

    The first acknowledgement of another node is the takeover. What the old primary acknowledges
    after it is late unless the new one has fallen silent for good: then it went back.
    """
    ordered = sorted(acks, key=lambda ack: ack.at_s)
    gaps_s = [b.at_s - a.at_s for a, b in itertools.pairwise(ordered) if b.at_s > begun_s]
    new = [ack.at_s for ack in ordered if ack.node != old and ack.at_s > begun_s]
    late = [ack.at_s for ack in ordered if ack.node == old and new and new[0] < ack.at_s < new[-1]]
    both = {int(at_s / SLICE_S) for at_s in late} & {int(at_s / SLICE_S) for at_s in new}
    return Seen(
        outage_ms=max(gaps_s, default=0.0) * 1000,
        late_acks=len(late),
        overlap_s=len(both) * SLICE_S,
        after=ordered[-1].node if ordered else 0,
    )


@dataclass(slots=True, kw_only=True)
class Visit:
    """One stack that has been started, and faults on it."""

    stack: Stack
    terms: Terms
    rng: random.Random = field(default_factory=random.Random)
    missing: int = 0
    frozen: Frozen = field(default_factory=Frozen)

    def round(self, fault: str, number: int, writers: Writers) -> Sample:
        """One fault, from rest to rest. Raises ClusterError, TimeoutError."""
        old = self._rest(writers)
        time.sleep(self.rng.uniform(0, self.stack.beat_s))
        load = load_average()[0]
        first_ack = len(writers.recorded.acks) - 1
        begun_s = time.monotonic()
        try:
            back_s = self._strikes()[fault](old, writers, begun_s)
        finally:
            self.frozen.thaw()
        searched_s = time.monotonic()
        rejoin_s = searched_s + at_rest(self.stack.dsns, DEADLINE_S) - back_s
        acks = writers.recorded.acks[max(first_ack, 0) :]
        seen = seen_by(acks, old, begun_s)
        # All that was acknowledged up to now, also by what thawed, must be there when it is read.
        acknowledged = {ack.row for ack in list(writers.recorded.acks)}
        _, rows = present(self.stack.dsns)
        missing = len(acknowledged - rows)
        lost, self.missing = missing - self.missing, missing
        return Sample(
            stack=self.stack.name,
            fault=fault,
            number=number,
            outage_ms=round(seen.outage_ms, 1),
            lost=lost,
            late_acks=seen.late_acks,
            overlap_s=round(seen.overlap_s, 1),
            rejoin_s=round(max(rejoin_s, 0.0), 2),
            before=old,
            after=seen.after,
            load=load,
        )

    def ready(self) -> None:
        """Wait until commits are what is to be measured. Raises ClusterError."""
        if self.terms.synchronous:
            dsns = self.stack.dsns
            wait_until("commits wait for a replica", lambda: commits_wait(dsns), SETTLE_S)

    def _rest(self, writers: Writers) -> int:
        """Wait until nothing is under way; returns the primary."""
        at_rest(self.stack.dsns, DEADLINE_S)
        wait_until(f"{self.stack.name} is settled", self.stack.settled, SETTLE_S)
        self.ready()
        begun_s = time.monotonic()
        wait_until("writes before the fault", lambda: _flow(writers, begun_s), SETTLE_S)
        primaries, _, _ = picture(self.stack.dsns)
        if len(primaries) != 1:
            raise ClusterError(f"primaries before the fault: {primaries}")
        return primaries[0]

    def _strikes(self) -> dict[str, Callable[[int, Writers, float], float]]:
        """Each does its fault to the primary and returns when the node may begin to come back."""
        return {
            CRASH: self._crash,
            KILLED: self._kill,
            FROZEN: self._freeze,
            AGENT: self._freeze_agent,
            SWITCH: self._switch,
        }

    def _crash(self, old: int, writers: Writers, begun_s: float) -> float:
        self.stack.processes.kill_server(old)
        self._await_flow(writers, begun_s)
        return begun_s

    def _kill(self, old: int, writers: Writers, begun_s: float) -> float:
        for pid in self.stack.node(old):
            send(pid, signal.SIGKILL)
        for pid in self.stack.processes.server_pids(old):  # forked in between
            send(pid, signal.SIGKILL)
        self._await_flow(writers, begun_s)
        self.stack.revive(old)
        return time.monotonic()

    def _freeze(self, old: int, writers: Writers, begun_s: float) -> float:
        agent = self.stack.agent(old)
        postmaster = self.stack.processes.postmaster_pid(old)
        self.frozen.stop(pid for pid in (agent, postmaster) if pid is not None)  # no new forks
        self.frozen.stop_all(f"node {old}", lambda: self.stack.node(old))
        return self._hold(begun_s, self.terms.node_s)

    def _freeze_agent(self, old: int, writers: Writers, begun_s: float) -> float:
        self.frozen.stop([self.stack.agent(old)])
        return self._hold(begun_s, self.terms.agent_s)

    def _switch(self, old: int, writers: Writers, begun_s: float) -> float:
        new = self.rng.choice([node for node in NODES if node != old])
        self.stack.switch(old, new)
        self._await_flow(writers, begun_s)
        return begun_s

    def _hold(self, begun_s: float, hold_s: float) -> float:
        time.sleep(max(0.0, begun_s + hold_s - time.monotonic()))
        self.frozen.thaw()
        return time.monotonic()

    def _await_flow(self, writers: Writers, begun_s: float) -> None:
        wait_until("writes after the fault", lambda: _flow(writers, begun_s), DEADLINE_S)


def _flow(writers: Writers, begun_s: float) -> bool:
    """Writing goes on, by commits that no dying backend made."""
    recent = [ack for ack in writers.recorded.acks[-FLOWING_ROWS:] if ack.at_s > begun_s + DYING_S]
    return len(recent) == FLOWING_ROWS
