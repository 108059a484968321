"""Do a step of the plan, and undo it when its time has come.

Lives here: who is hit, what signals are sent, what has to be thawed or started again and when. Must
not live here: the plan, waiting for the cluster to heal. Whatever is done is undone at the latest
by `undo_all`, so nothing stays down for good. Start reading at `Harm.do`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.chaos.plan import Kind, Role, Step
from bench.chaos.switchovers import Switchovers
from tools.freezing import Frozen
from tools.local_cluster import ClusterError, LocalCluster
from tools.local_processes import alive, belongs_to, send

AGAIN_S: Final = 0.5
UNDO_S: Final = 60.0
POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What ends a fault; false from `act`: not yet, ask again."""

    due_s: float
    node: int
    starts: bool
    """It starts a daemon; else it thaws."""
    act: Callable[[], bool]


class Harm:
    """Faults on one cluster, at most one at a time begun, any number lasting."""

    def __init__(
        self, cluster: LocalCluster, nodes: tuple[int, ...], primary: Callable[[], int]
    ) -> None:
        """`primary`: the node that was seen to be primary last."""
        self._cluster = cluster
        self._nodes = nodes
        self._primary = primary
        self._repairs: list[Repair] = []
        self.switchovers = Switchovers(cluster, nodes)

    def do(self, step: Step) -> str:
        """Begin the fault; returns in words what was done, or why nothing was."""
        victims = self._victims(step)
        actions: dict[Kind, Callable[[Step, list[int]], str]] = {
            Kind.SERVER_KILLED: self._kill_server,
            Kind.NODE_KILLED: self._kill_nodes,
            Kind.ALL_NODES_KILLED: self._kill_nodes,
            Kind.PAIR_KILLED: self._kill_nodes,
            Kind.DAEMON_KILLED: self._signal_daemons,
            Kind.DAEMON_STOPPED: self._signal_daemons,
            Kind.ALL_DAEMONS_KILLED: self._signal_daemons,
            Kind.NODE_FROZEN: self._freeze_nodes,
            Kind.PAIR_FROZEN: self._freeze_nodes,
            Kind.DAEMON_FROZEN: self._freeze_daemon,
            Kind.SERVER_FROZEN: self._freeze_server,
            Kind.SWITCHOVER: self._switch,
        }
        try:
            return actions.get(step.kind, self._child)(step, victims)
        except (ClusterError, ProcessLookupError) as error:
            return f"nothing: {error}"

    @property
    def pending(self) -> bool:
        """Something is not undone yet."""
        return bool(self._repairs)

    def down(self, node: int) -> bool:
        """Its daemon is away by our doing."""
        return any(repair.starts and repair.node == node for repair in self._repairs)

    def undo_due(self, now_s: float | None = None) -> None:
        """Undo what is due now, or at `now_s`. Raises ClusterError."""
        at_s = time.monotonic() if now_s is None else now_s
        due = [repair for repair in self._repairs if repair.due_s <= at_s]
        # Thaw first: a daemon that was asked to end while frozen ends only then.
        for repair in sorted(due, key=lambda one: one.starts):
            if repair.act():
                self._repairs.remove(repair)

    def undo_all(self) -> None:
        """Nothing is frozen any more and every daemon is started. Raises ClusterError."""
        until_s = time.monotonic() + UNDO_S
        while self._repairs:
            self.undo_due(float("inf"))
            if self._repairs and time.monotonic() > until_s:
                nodes = sorted({repair.node for repair in self._repairs})
                raise ClusterError(f"not undone within {UNDO_S:g} s on nodes {nodes}")
            time.sleep(POLL_S)

    def _victims(self, step: Step) -> list[int]:
        primary = self._primary()
        others = [node for node in self._nodes if node != primary]
        replica = others[step.pick % len(others)]
        if step.role is Role.ALL:
            return list(self._nodes)
        if step.kind in (Kind.PAIR_KILLED, Kind.PAIR_FROZEN):
            return [primary, replica]
        return [primary if step.role is Role.PRIMARY else replica]

    # --- killing ------------------------------------------------------------------------------

    def _kill_server(self, step: Step, victims: list[int]) -> str:
        self._cluster.kill_server(victims[0])
        return f"node {victims[0]}"

    def _kill_nodes(self, step: Step, victims: list[int]) -> str:
        said = self._start_later(step, dict.fromkeys(victims))  # first: it must come back anyhow
        for node in victims:
            self._cluster.kill_node(node)
        return said

    def _signal_daemons(self, step: Step, victims: list[int]) -> str:
        how = signal.SIGTERM if step.kind is Kind.DAEMON_STOPPED else signal.SIGKILL
        hit: dict[int, int | None] = {}
        for node in victims:
            pid = self._cluster.processes.daemon_pid(node)
            if pid is not None:
                send(pid, how)
                hit[node] = pid
        return self._start_later(step, hit) if hit else "nothing: no daemon runs"

    def _start_later(self, step: Step, ended: dict[int, int | None]) -> str:
        """By node: the daemon that was told to end, if it may take a while."""
        holds = (step.hold_s, step.second_hold_s or step.hold_s)
        said = []
        for place, (node, old) in enumerate(ended.items()):
            hold_s = holds[min(place, 1)]
            self._later(hold_s, node, self._starter(node, old), starts=True)
            said.append(f"node {node} for {hold_s:g} s")
        return ", ".join(said)

    def _starter(self, node: int, old: int | None) -> Callable[[], bool]:
        """Starts the daemon, once the one that was told to end has ended: that takes longer than
        its pid file is there, or its working directory to be seen."""
        processes, root = self._cluster.processes, self._cluster.root

        def start() -> bool:
            if processes.daemon_lives(node, but=old):
                return True
            if processes.daemon_lives(node):
                return False
            if old is not None and alive(old) and belongs_to(old, root):
                return False
            self._cluster.spawn(node)
            return True

        return start

    # --- freezing -----------------------------------------------------------------------------

    def _freeze_nodes(self, step: Step, victims: list[int]) -> str:
        holds = (step.hold_s, step.second_hold_s)
        return ", ".join(
            self._freeze(node, hold_s, lambda node=node: self._cluster.processes.node_pids(node))  # type: ignore[misc]
            for node, hold_s in zip(victims, holds, strict=False)
        )

    def _freeze_server(self, step: Step, victims: list[int]) -> str:
        node = victims[0]
        return self._freeze(node, step.hold_s, lambda: self._cluster.processes.server_pids(node))

    def _freeze_daemon(self, step: Step, victims: list[int]) -> str:
        node = victims[0]
        pid = self._cluster.processes.daemon_pid(node)
        return self._freeze(node, step.hold_s, lambda: [] if pid is None else [pid])

    def _freeze(self, node: int, hold_s: float, pids: Callable[[], Iterable[int]]) -> str:
        frozen = Frozen()
        try:
            frozen.stop_all(f"node {node}", pids)
        finally:

            def thaw() -> bool:
                frozen.thaw()
                return True

            self._later(hold_s, node, thaw, starts=False)
        return f"node {node} for {hold_s:g} s"

    def _later(self, hold_s: float, node: int, act: Callable[[], bool], *, starts: bool) -> None:
        due_s = time.monotonic() + hold_s
        self._repairs.append(Repair(due_s=due_s, node=node, starts=starts, act=act))

    # --- one process of a server ----------------------------------------------------------------

    def _child(self, step: Step, victims: list[int]) -> str:
        node = victims[0]
        found = sorted(self._children(node, step.kind))
        if not found:
            return f"nothing: no such process on node {node}"
        pid, title = found[step.pick % len(found)]
        if step.kind in (Kind.WALSENDER_FROZEN, Kind.WALRECEIVER_FROZEN):
            return f"{title!r}, {self._freeze(node, step.hold_s, lambda: [pid])}"
        os.kill(pid, signal.SIGKILL)
        return f"node {node}, {title!r}"

    def _children(self, node: int, kind: Kind) -> Iterable[tuple[int, str]]:
        postmaster = self._cluster.processes.postmaster_pid(node)
        for pid in self._cluster.processes.server_pids(node):
            title = title_of(pid)
            if pid != postmaster and fits(kind, title):
                yield pid, title

    def _switch(self, step: Step, victims: list[int]) -> str:
        # Every third asks for no target.
        target = victims[0] if step.pick % 3 else None
        asked = self._nodes[step.pick // 3 % len(self._nodes)]
        return self.switchovers.ask(asked, target)


def fits(kind: Kind, title: str) -> bool:
    """A process of a server that a fault of this kind may hit, by what it calls itself."""
    if not title.startswith("postgres: "):
        return False
    if kind in (Kind.WALSENDER_KILLED, Kind.WALSENDER_FROZEN):
        return "walsender " in title
    if kind in (Kind.WALRECEIVER_KILLED, Kind.WALRECEIVER_FROZEN):
        return "walreceiver" in title
    if kind is Kind.BACKEND_KILLED:
        return "127.0.0.1(" in title and "walsender " not in title
    return True


def title_of(pid: int) -> str:
    """What a process calls itself; "" if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return ""
