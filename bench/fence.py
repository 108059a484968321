"""How late the old primary acknowledges after its lease has ended, with its daemon out of action.

Rounds on one cluster of three nodes. Eight pgbench clients write to the primary itself, each
transaction logged with the time at which it was acknowledged. Then the primary's daemon alone is
frozen (SIGSTOP) or killed (SIGKILL), or its daemon and its whole server are frozen and thawed after
a while. From then on the lease word in the page does not change, so the end of the lease is
known to the nanosecond; another node is promoted, and a client there notes its first
acknowledged row. Measured: the latest acknowledgement of the old primary after the end of its
lease, and how many it gave after the new primary's first one.

Exit status 1 if any was given after the new primary's first, or a round did not come to its end.
Start reading at `Trial.round`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from bench.figures import Series, load_average, machine, save, table
from bench.outside import at_rest
from pgraft.page.file import Page
from pgraft.page.layout import PLACES, START_MASK
from pgraft.page.reader import server_start
from ramd.postgres.account import owner_account
from ramd.postgres.binaries import find_postgres
from tools.local_cluster import ClusterError, LocalCluster, wait_until
from tools.local_processes import send
from tools.writers import create_table

NODES = (1, 2, 3)
CLIENTS = 8
WARM_S = 1.0
DEADLINE_S = 90.0
AFTER_S = 2.0
"""How long the old primary is watched after the new one's first row."""
FROZEN = "daemon frozen"
KILLED = "daemon killed"
HOST = "daemon and server frozen"
SCRIPT = "INSERT INTO ramd_writes(row, node) VALUES (:client_id, 0);\n"


@dataclass(slots=True)
class Fault:
    """All rounds of one kind; times in ms after the end of the lease, negative if before it."""

    latest_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    acks_after: int = 0
    """Given by the old primary after the new one's first."""
    acks: int = 0

    def figures(self) -> dict[str, object]:
        """For JSON."""
        return {
            "latest_ack_ms": Series.of(self.latest_ms).figures(1),
            "new_primary_first_ack_ms": Series.of(self.first_ms).figures(0),
            "acks_after_new_primary": self.acks_after,
            "acks": self.acks,
        }


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@contextlib.contextmanager
def page_of(cluster: LocalCluster, node: int) -> Iterator[Page]:
    """The page that the node's running server says it has mapped."""
    pid = cluster.processes.postmaster_pid(node)
    if pid is None:
        raise ClusterError(f"node {node} has no server")
    for path in cluster.places.page_dir().glob("*.page"):
        owner = path.stat()
        page = Page.open(path, uid=owner.st_uid, gid=owner.st_gid, make=False, lock=False)
        try:
            if server_start(page).postmaster_pid == pid:
                yield page
                return
        finally:
            page.close()
    raise ClusterError(f"node {node}'s server has no page: is the extension loaded?")


class Load:
    """pgbench on one node, as an unprivileged user, with a log of every acknowledgement."""

    def __init__(self, cluster: LocalCluster, node: int, bin_dir: Path, number: int) -> None:
        self.folder = cluster.root / f"load{number}"
        self.folder.mkdir()
        account = owner_account(cluster.places.data_dir(node))
        if account.drops:
            os.chown(self.folder, account.uid, account.gid)
        script = self.folder / "insert.sql"
        script.write_text(SCRIPT)
        script.chmod(0o644)
        self._offset_ns = time.time_ns() - boot_ns()
        identity = (account.uid, account.gid) if account.drops else (None, None)
        self._process = subprocess.Popen(
            [
                str(bin_dir / "pgbench"), "-n", "-M", "simple", "-c", str(CLIENTS), "-j", "2",
                "-T", "600", "-l", "-f", str(script), "-h", "127.0.0.1",
                "-p", str(cluster.ports.postgresql + node - 1), "-U", "postgres", "postgres",
            ],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "errors").open("wb"),
            env={"PATH": "/usr/bin:/bin", "HOME": "/"},
            user=identity[0],
            group=identity[1],
        )  # fmt: skip

    def end(self) -> list[int]:
        """Stop it if it still runs; every acknowledgement's time, BOOTTIME ns."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=10)
        acks = []
        for path in self.folder.glob("pgbench_log.*"):
            for line in path.read_text().splitlines():
                fields = line.split()
                if len(fields) >= 6:
                    wall_ns = int(fields[4]) * 1_000_000_000 + int(fields[5]) * 1000
                    acks.append(wall_ns - self._offset_ns)
        return sorted(acks)


class Trial:
    """The cluster, and what the rounds did to it."""

    def __init__(self, cluster: LocalCluster, bin_dir: Path, frozen_s: float) -> None:
        self.cluster = cluster
        self.bin_dir = bin_dir
        self.frozen_s = frozen_s
        self.dsns = {node: cluster.dsn(node) for node in NODES}
        self.rounds = 0

    def round(self, name: str, fault: Fault) -> None:
        """One fault from rest to rest. Raises ClusterError, TimeoutError."""
        at_rest(self.dsns, DEADLINE_S)
        self.cluster.wait_healthy(DEADLINE_S)
        old = self.cluster.primary()
        if old is None:
            raise ClusterError("no primary before the fault")
        self.rounds += 1
        load = Load(self.cluster, old, self.bin_dir, self.rounds)
        stopped: list[int] = []
        acks: list[int] = []
        try:
            time.sleep(WARM_S)
            with page_of(self.cluster, old) as page:
                stopped = self._strike(name, old)
                ends_ns = page.words[PLACES["LEASE"]] & ~START_MASK
                first_ns = self._first_row(old)
                if name == HOST:
                    time.sleep(max(0.0, self.frozen_s - (boot_ns() - ends_ns) / 1e9))
                    self._thaw(stopped)
                time.sleep(AFTER_S)
                acks = load.end()
        finally:
            load.end()
            self._thaw(stopped)
            if name == KILLED:
                self.cluster.spawn(old)
        self._note(fault, (name, old), acks, (ends_ns, first_ns))

    def _strike(self, name: str, node: int) -> list[int]:
        """Do it; returns the processes that are stopped now."""
        processes = self.cluster.processes
        daemon = processes.daemon_pid(node)
        if daemon is None:
            raise ClusterError(f"node {node} has no daemon")
        if name == KILLED:
            processes.kill_daemon(node)
            return []
        pids = [daemon]
        if name == HOST:
            postmaster = processes.postmaster_pid(node)
            pids += [pid for pid in (postmaster, *processes.server_pids(node)) if pid]
        for pid in pids:
            send(pid, signal.SIGSTOP)
        return pids

    def _thaw(self, pids: list[int]) -> None:
        while pids:
            send(pids.pop(), signal.SIGCONT)

    def _first_row(self, old: int) -> int:
        """When another node acknowledged its first row, BOOTTIME ns."""
        until_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < until_s:
            for node, dsn in self.dsns.items():
                if node == old:
                    continue
                with (
                    contextlib.suppress(psycopg.Error),
                    psycopg.connect(f"{dsn} connect_timeout=2", autocommit=True) as connection,
                ):
                    recovering = connection.execute("SELECT pg_is_in_recovery()").fetchone()
                    if recovering == (False,):
                        connection.execute("INSERT INTO ramd_writes(row, node) VALUES (-1, 1)")
                        return boot_ns()
            time.sleep(0.005)
        raise TimeoutError("no other node took a write")

    def _note(
        self, fault: Fault, what: tuple[str, int], acks: list[int], times: tuple[int, int]
    ) -> None:
        (name, old), (ends_ns, first_ns) = what, times
        if not acks:
            raise ClusterError(f"{name}: the clients of node {old} have no acknowledgement at all")
        fault.acks += len(acks)
        fault.latest_ms.append((acks[-1] - ends_ns) / 1e6)
        fault.first_ms.append((first_ns - ends_ns) / 1e6)
        late = sum(ack > first_ns for ack in acks)
        fault.acks_after += late
        print(
            f"{name:24s} node {old}: {len(acks):6d} rows acknowledged, the last"
            f" {fault.latest_ms[-1]:7.1f} ms after the end of the lease; the new primary's first"
            f" {fault.first_ms[-1]:5.0f} ms after it; late: {late}; load {load_average()[0]}",
            flush=True,
        )


def measure(runs: dict[str, int], bin_dir: Path | None, frozen_s: float) -> dict[str, Fault]:
    """All rounds on one new cluster. Raises ClusterError, TimeoutError."""
    programs = find_postgres(bin_dir)
    settings: dict[str, object] = {"pgraft_extension": "required"}
    if bin_dir is not None:
        settings["postgresql_bin_dir"] = bin_dir
    cluster = LocalCluster(settings=settings)
    faults = {name: Fault() for name, count in runs.items() if count}
    try:
        cluster.start()
        cluster.create(len(NODES))
        trial = Trial(cluster, programs.bin_dir, frozen_s)
        create_table(trial.dsns)
        for number in range(max(runs.values())):
            for name, fault in faults.items():
                if number < runs[name]:
                    trial.round(name, fault)
        wait_until("healthy at the end", lambda: cluster.primary() is not None, DEADLINE_S)
    finally:
        cluster.close()
    return faults


def markdown(faults: dict[str, Fault], version: str) -> str:
    """The page that is kept."""
    heads = ("fault", "n", "latest ack ms: median", "p90", "max", "acks after the new primary's")
    rows = []
    for name, fault in faults.items():
        series = Series.of(fault.latest_ms)
        figures = (series.median, series.p90, series.highest)
        cells = [f"{figure:.1f}" for figure in figures]
        rows.append([name, str(len(series.values)), *cells, str(fault.acks_after)])
    return (
        f"# Fence, PostgreSQL {version}\n\n{table(heads, rows)}\nTimes are after the end of the"
        f" lease, {CLIENTS} clients. {machine()}; load {load_average()}.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="of each fault of the daemon alone")
    parser.add_argument("--host-runs", type=int, default=0, help="of daemon and server frozen")
    parser.add_argument("--frozen", type=float, default=60.0, help="for so many seconds")
    parser.add_argument("--bin-dir", type=Path, help="of another PostgreSQL than the embedded")
    parser.add_argument("--save", action="store_true", help="keep a table in bench/results")
    arguments = parser.parse_args()
    runs = {FROZEN: arguments.runs, KILLED: arguments.runs, HOST: arguments.host_runs}
    try:
        faults = measure(runs, arguments.bin_dir, arguments.frozen)
    except (ClusterError, TimeoutError) as error:
        print(f"FAILED: {error}")
        return 1
    version = find_postgres(arguments.bin_dir).version
    for name, fault in faults.items():
        print(f"{name}: latest acknowledgement {Series.of(fault.latest_ms).text('ms', 1)}")
    print(json.dumps({"version": version} | {n: f.figures() for n, f in faults.items()}))
    if arguments.save:
        print(f"kept in {save('fence', markdown(faults, version))}")
    return 1 if any(fault.acks_after for fault in faults.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
