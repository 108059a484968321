"""What a daemon costs while nothing happens: memory and processor time, the highest of three.

A cluster is created and left alone; 30 s later each daemon is watched for 60 s. Nobody asks the
API meanwhile. The servers' share, which the daemons' probes are part of, is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass

import psutil

from bench.figures import load_average, machine, save, table
from bench.outside import at_rest
from tools.local_cluster import ClusterError, LocalCluster

NODES = (1, 2, 3)
DEADLINE_S = 60.0
LOOK_S = 1.0
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One node over the time it was watched."""

    node: int
    rss_mib: float
    """The highest seen of the daemon."""
    cpu_percent: float
    """Of one core, the daemon's own time."""
    wakes_per_s: float
    """Times the daemon went to sleep by itself: each is a reason for the processor to wake."""
    server_cpu_percent: float
    """Of one core, all processes of the node's server that lived all the time."""

    def cells(self) -> list[str]:
        """For a table."""
        figures = (self.rss_mib, self.cpu_percent, self.wakes_per_s, self.server_cpu_percent)
        return [str(self.node), *(f"{figure:.1f}" for figure in figures)]


HEADS = ("node", "RSS MiB", "CPU % of a core", "wakes per s", "server CPU %")


class Watch:
    """The processes of one node from now on."""

    def __init__(self, cluster: LocalCluster, node: int) -> None:
        pid = cluster.processes.daemon_pid(node)
        if pid is None:
            raise ClusterError(f"node {node} has no daemon")
        self.node = node
        self._daemon = psutil.Process(pid)
        servers = [psutil.Process(pid) for pid in cluster.processes.server_pids(node)]
        self._before = {process: seconds_of(process) for process in (self._daemon, *servers)}
        self._begun_s = time.monotonic()
        self._wakes = self._daemon.num_ctx_switches().voluntary
        self._rss = 0

    def look(self) -> None:
        """Memory now."""
        self._rss = max(self._rss, self._daemon.memory_info().rss)

    def end(self) -> Cost:
        """What it cost since the beginning."""
        self.look()
        seconds = time.monotonic() - self._begun_s
        spent = {
            process: 100 * (seconds_of(process) - before) / seconds
            for process, before in self._before.items()
            if process.is_running()
        }
        daemon = spent.pop(self._daemon)
        wakes = self._daemon.num_ctx_switches().voluntary - self._wakes
        return Cost(
            node=self.node,
            rss_mib=self._rss / MIB,
            cpu_percent=daemon,
            wakes_per_s=wakes / seconds,
            server_cpu_percent=sum(spent.values()),
        )


def seconds_of(process: psutil.Process) -> float:
    """User and system time of a process, without its children."""
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(settle_s: float, seconds: float) -> list[Cost]:
    """The cost of every node. Raises ClusterError, TimeoutError."""
    cluster = LocalCluster()
    try:
        cluster.start()
        cluster.create(len(NODES))
        at_rest({node: cluster.dsn(node) for node in NODES}, DEADLINE_S)
        time.sleep(settle_s)
        watches = [Watch(cluster, node) for node in NODES]
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            time.sleep(LOOK_S)
            for watch in watches:
                watch.look()
        return [watch.end() for watch in watches]
    finally:
        cluster.close()


def report(costs: list[Cost], before: list[float]) -> str:
    """The page that is kept."""
    return (
        f"# Idle\n\n{table(HEADS, [cost.cells() for cost in costs])}\n"
        f"{machine()}; load {before} before, {load_average()} after.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settle", type=float, default=30, help="seconds to wait after create")
    parser.add_argument("--seconds", type=float, default=60, help="how long to watch")
    parser.add_argument("--save", action="store_true", help="keep a table in bench/results")
    arguments = parser.parse_args()
    before = load_average()
    try:
        costs = measure(arguments.settle, arguments.seconds)
    except (ClusterError, TimeoutError) as error:
        print(f"FAILED: {error}")
        return 1
    text = report(costs, before)
    print(text)
    result = {
        "rss_mib": round(max(cost.rss_mib for cost in costs), 1),
        "cpu_percent": round(max(cost.cpu_percent for cost in costs), 2),
        "load": [before, load_average()],
    }
    print(json.dumps(result))
    if arguments.save:
        print(f"kept in {save('idle', text)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
