"""How long writing stops when the primary is lost, measured by clients that know no daemon.

One cluster, two faults by turns: the primary's postmaster is killed (server crash); the primary's
daemon, postmaster and backends are killed at once (node lost), and its daemon is started again once
writing goes on. Before each fault the servers themselves show one primary and every other node
streaming. PostgreSQL's own promotion, without any daemon, is measured in the same run: the floor.
Exit status 1 if writing did not resume or a node did not rejoin in time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field

from bench.figures import Series, load_average, machine, save, table
from bench.floor import promote_floor
from bench.outside import at_rest
from ramd.config.load import load
from tools.local_cluster import ClusterError, LocalCluster, wait_until
from tools.writers import Outage, Writers, create_table, present

NODES = (1, 2, 3)
SERVER_CRASH = "server crash"
NODE_LOST = "node lost"
FAULTS = (SERVER_CRASH, NODE_LOST)
DEADLINE_S = 90.0
FLOWING_ROWS = 20
DYING_S = 0.2
"""Backends of a killed postmaster may acknowledge a little longer."""


@dataclass(slots=True)
class Fault:
    """All rounds of one kind."""

    outage_ms: list[float] = field(default_factory=list)
    rejoin_s: list[float] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    def figures(self) -> dict[str, object]:
        """For JSON."""
        return {
            "outage_ms": Series.of(self.outage_ms).figures(),
            "rejoin_s": Series.of(self.rejoin_s).figures(1),
            "rows_lost": sum(self.lost),
            "runs_with_rows_lost": sum(lost > 0 for lost in self.lost),
        }


@dataclass(slots=True)
class Report:
    """Everything one run has measured."""

    floor_ms: list[float] = field(default_factory=list)
    create_s: float = 0.0
    lease_ms: int = 0
    faults: dict[str, Fault] = field(default_factory=lambda: {name: Fault() for name in FAULTS})
    coordinator_there: int = 0
    """Rounds in which the primary's node also coordinated: losing it costs an election too."""
    load: list[list[float]] = field(default_factory=lambda: [load_average()])

    def ratio(self, name: str) -> float:
        """Median outage over median floor; without the lease where that has to run out first."""
        waited_ms = self.lease_ms if name == NODE_LOST else 0
        outage_ms = Series.of(self.faults[name].outage_ms).median - waited_ms
        return outage_ms / Series.of(self.floor_ms).median

    def figures(self) -> dict[str, object]:
        """The line that machines read."""
        return {
            "promote_floor_ms": Series.of(self.floor_ms).figures(),
            "create_s": round(self.create_s, 1),
            "lease_ms": self.lease_ms,
            **{
                name.replace(" ", "_"): fault.figures() | {"ratio": round(self.ratio(name), 2)}
                for name, fault in self.faults.items()
            },
            "coordinator_on_the_primary": self.coordinator_there,
            "load": self.load,
            "machine": machine(),
        }

    def markdown(self) -> str:
        """The page that is kept."""
        heads = ("", "n", "median ms", "p90 ms", "max ms", "over floor", "rejoin s", "rows lost")
        floor = Series.of(self.floor_ms)
        rows = [["promote floor", *_cells(floor), "1.0", "", ""]]
        for name, fault in self.faults.items():
            rejoin = Series.of(fault.rejoin_s)
            shown = f"{rejoin.median:.1f} (max {rejoin.highest:.1f})"
            ratio = f"{self.ratio(name):.1f}"
            outage = _cells(Series.of(fault.outage_ms))
            rows.append([name, *outage, ratio, shown, str(sum(fault.lost))])
        return (
            f"# Failover\n\n{table(heads, rows)}\nCreate {self.create_s:.1f} s, lease"
            f" {self.lease_ms} ms, which a lost node's has to run out first: it is taken off before"
            f" the comparison with the floor. {machine()}; load {self.load[0]} before,"
            f" {self.load[-1]} after. Replication is asynchronous.\n"
        )


def _cells(series: Series) -> list[str]:
    figures = (len(series.values), series.median, series.p90, series.highest)
    return [f"{figure:.0f}" for figure in figures]


class Trial:
    """The cluster, its clients, and what the rounds did to it."""

    def __init__(self, cluster: LocalCluster, report: Report) -> None:
        self.cluster = cluster
        self.report = report
        self.dsns = {node: cluster.dsn(node) for node in NODES}
        self._missing = 0

    def create(self) -> None:
        """From the request to its answer, with every replica streaming."""
        self.cluster.start()
        begun_s = time.monotonic()
        self.cluster.create(len(NODES))
        self.report.create_s = time.monotonic() - begun_s
        create_table(self.dsns)
        self.report.lease_ms = load(self.cluster.places.conf(1), {}).primary_lease_ttl_ms

    def round(self, name: str, writers: Writers) -> None:
        """One fault from rest to rest. Raises ClusterError, TimeoutError."""
        at_rest(self.dsns, DEADLINE_S)
        self.cluster.wait_healthy(DEADLINE_S)
        primary, coordinator = _heads(self.cluster)
        self.report.coordinator_there += primary == coordinator
        begun_s = time.monotonic()
        if name == NODE_LOST:
            self.cluster.kill_node(primary)
        else:
            self.cluster.kill_server(primary)
        wait_until(f"writes after {name}", lambda: _flow(writers, begun_s), DEADLINE_S)
        back_s = begun_s
        if name == NODE_LOST:
            back_s = time.monotonic()
            self.cluster.spawn(primary)
        searched_s = time.monotonic()
        rested_s = searched_s + at_rest(self.dsns, DEADLINE_S)
        self._note(name, writers.outage(begun_s), rested_s - back_s, writers)

    def _note(self, name: str, outage: Outage, rejoin_s: float, writers: Writers) -> None:
        fault = self.report.faults[name]
        fault.outage_ms.append(outage.seconds * 1000)
        fault.rejoin_s.append(rejoin_s)
        acknowledged = {ack.row for ack in list(writers.recorded.acks)}
        _, rows = present(self.dsns)
        missing = len(acknowledged - rows)
        fault.lost.append(missing - self._missing)
        self._missing = missing
        self.report.load.append(load_average())
        print(
            f"{name:12s} node {outage.before} → {outage.after}: {fault.outage_ms[-1]:6.0f} ms"
            f" without writes, rejoined after {fault.rejoin_s[-1]:5.1f} s,"
            f" {fault.lost[-1]} rows lost, load {self.report.load[-1][0]}",
            flush=True,
        )


def _heads(cluster: LocalCluster) -> tuple[int, int | None]:
    """(primary, coordinator)."""
    status = cluster.status()
    if status is None or not status["primary_node_id"]:
        raise ClusterError("no primary before the fault")
    return int(status["primary_node_id"]), status["leader_node_id"]


def _flow(writers: Writers, begun_s: float) -> bool:
    """Writing goes on, by commits that no dying backend made."""
    recent = [ack for ack in writers.recorded.acks[-FLOWING_ROWS:] if ack.at_s > begun_s + DYING_S]
    return len(recent) == FLOWING_ROWS


def measure(runs: int, floor_runs: int) -> Report:
    """The whole benchmark; half of the floor before the cluster, half after it."""
    report = Report()
    report.floor_ms += promote_floor((floor_runs + 1) // 2)
    cluster = LocalCluster()
    try:
        trial = Trial(cluster, report)
        trial.create()
        with Writers(trial.dsns) as writers:
            for _ in range(runs):
                for name in FAULTS:
                    trial.round(name, writers)
    finally:
        cluster.close()
    report.floor_ms += promote_floor(floor_runs // 2)
    return report


def show(report: Report) -> None:
    """For people, and the last line for machines."""
    print(f"promote floor: {Series.of(report.floor_ms).text('ms')}")
    for name, fault in report.faults.items():
        after = " after the lease" if name == NODE_LOST else ""
        ratio = f"{report.ratio(name):.1f} x floor{after}"
        print(f"{name}: {Series.of(fault.outage_ms).text('ms')}, {ratio}")
        print(f"  rejoined: {Series.of(fault.rejoin_s).text('s', 1)}")
    print(f"create: {report.create_s:.1f} s, lease: {report.lease_ms} ms")
    print(json.dumps(report.figures()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="of each fault")
    parser.add_argument("--floor-runs", type=int, default=6)
    parser.add_argument("--save", action="store_true", help="keep a table in bench/results")
    arguments = parser.parse_args()
    if arguments.runs < 1 or arguments.floor_runs < 2:
        parser.error("at least one run of each fault and two of the floor")
    try:
        report = measure(arguments.runs, arguments.floor_runs)
    except (ClusterError, TimeoutError) as error:
        print(f"FAILED: {error}")
        return 1
    show(report)
    if arguments.save:
        print(f"kept in {save('failover', report.markdown())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
