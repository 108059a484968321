"""What the fence costs: the same work on a server with the extension and on one without, by turns.

CPU time of the backend per transaction, from the scheduler's own count, in a loop inside the
server that does nothing else; then pgbench over the socket, simple-update and select-only. Only
ratios of the same run mean anything. Start reading at `measure`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg

from bench.figures import load_average, machine
from pgraft.extension.build import build, build_root
from pgraft.page.file import Page
from pgraft.page.reader import server_start
from pgraft.page.writer import DaemonHalf
from ramd.domain.fence import Preload
from ramd.domain.server import StopMode
from ramd.postgres.instance import Instance
from ramd.postgres.options import ServerOptions
from ramd.postgres.site import Site, open_site
from tools.local_cluster import free_ports

START_MS = 30_000
LEASE_NS = 3600 * 10**9
LOOPS = 40_000
LOOP = """
CREATE OR REPLACE PROCEDURE work(n int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1..n LOOP UPDATE one SET n = i; COMMIT; END LOOP;
END $$
"""
MODES = {"simple-update": ("-N",), "select-only": ("-S",)}


@dataclass(slots=True)
class Figures:
    """Each value is with the extension over without, of one pair."""

    cpu_us: dict[str, list[float]] = field(default_factory=lambda: {"with": [], "without": []})
    tps: dict[str, list[float]] = field(default_factory=lambda: {mode: [] for mode in MODES})

    def cpu_ratio(self) -> float:
        """Of the best of each: whatever else ran on the machine only adds."""
        return min(self.cpu_us["with"]) / min(self.cpu_us["without"])


class Bare:
    """One server without a daemon; with a page it has a lease that outlives the run."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.server = Instance(site)

    async def start(self) -> None:
        self.site.prepare()
        await self.server.data.initdb()
        await self.server.start(replica=False, upstream=None, timeout_ms=START_MS)
        async with asyncio.timeout(30):
            while not (await self.server.probe(timeout_ms=1000)).accepting:
                await asyncio.sleep(0.05)
        if self.site.preload is not None:
            self._lease(self.site.preload.page)
        with self.connect() as connection:
            connection.execute("CREATE UNLOGGED TABLE one(n int)")
            connection.execute("INSERT INTO one VALUES (0)")
            connection.execute(LOOP)
        self.pgbench("-i", "-q", "-s", "5")

    def _lease(self, path: Path) -> None:
        account = self.site.account
        page = Page.open(path, uid=account.uid, gid=account.gid, make=False)
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        DaemonHalf(page).lease(now_ns + LEASE_NS, server_start(page).start)
        page.close()

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host="127.0.0.1", port=self.site.options.port, user="postgres", autocommit=True
        )

    def cpu_us(self) -> float:
        """CPU time of one transaction, in the backend alone."""
        with self.connect() as connection:
            connection.execute("SET synchronous_commit = off")
            connection.execute("VACUUM one")
            connection.execute("CALL work(2000)")
            stat = Path("/proc", str(connection.info.backend_pid), "schedstat")
            before_ns = int(stat.read_text().split()[0])
            connection.execute(f"CALL work({LOOPS})".encode())
            return (int(stat.read_text().split()[0]) - before_ns) / 1000 / LOOPS

    def pgbench(self, *options: str) -> str:
        program = self.site.binaries.bin_dir / "pgbench"
        port = str(self.site.options.port)
        argv = [str(program), "-h", str(self.site.socket_dir), "-p", port, "-U", "postgres"]
        done = subprocess.run(
            [*argv, *options, "postgres"], capture_output=True, text=True, check=True, cwd="/"
        )
        return done.stdout

    def tps(self, mode: str, seconds: int) -> float:
        said = self.pgbench("-n", "-c", "4", "-T", str(seconds), *MODES[mode])
        found = re.search(r"tps = ([\d.]+)", said)
        assert found is not None, said
        return float(found[1])


async def measure(rounds: int, seconds: int, bin_dir: Path | None) -> Figures:
    """Both servers, `rounds` times by turns."""
    root = Path(tempfile.mkdtemp(prefix="ramd-cost-"))
    memory = Path(tempfile.mkdtemp(prefix="ramd-cost-", dir="/dev/shm"))
    figures = Figures()
    port = free_ports().postgresql
    try:
        for folder in (root, memory):
            folder.chmod(0o711)
        async with AsyncExitStack() as stack:
            servers = {}
            for number, name in enumerate(("with", "without")):
                site = _site(root, number, port + number, bin_dir)
                if name == "with":
                    site = _preloading(site, memory)
                bare = servers[name] = Bare(site)
                await stack.enter_async_context(bare.server)
                stack.push_async_callback(bare.server.stop, StopMode.IMMEDIATE, timeout_ms=9000)
                await bare.start()
            for number in range(rounds):
                order = list(servers)[:: 1 if number % 2 else -1]
                for name in order:
                    figures.cpu_us[name].append(servers[name].cpu_us())
                for mode in MODES:
                    tps = {name: servers[name].tps(mode, seconds) for name in order}
                    figures.tps[mode].append(tps["with"] / tps["without"])
                print(f"round {number + 1}: {_line(figures)}", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(memory, ignore_errors=True)
    return figures


def _line(figures: Figures) -> str:
    cpu = {name: values[-1] for name, values in figures.cpu_us.items()}
    tps = ", ".join(f"{mode} {values[-1]:.3f}" for mode, values in figures.tps.items())
    return f"CPU {cpu['with']:.2f} / {cpu['without']:.2f} us; pgbench {tps}; {load_average()[0]}"


def _preloading(site: Site, memory: Path) -> Site:
    made = build(
        site.binaries.bin_dir / "pg_config", build_root(), server_version=site.binaries.version
    )
    account = site.account
    folder = memory / "page"
    folder.mkdir(mode=0o700)
    account.give(folder)
    preload = Preload(
        library_dir=made.library.parent, share_dir=made.share, page=folder / "p", grace_ms=1000
    )
    return replace(site, preload=preload)


def _site(root: Path, number: int, port: int, bin_dir: Path | None) -> Site:
    folder = root / f"s{number}"
    options = ServerOptions(
        node_id=number + 1,
        data_dir=folder / "data",
        state_dir=folder / "state",
        log_dir=folder / "log",
        port=port,
        initdb_options=("--no-sync",),
    )
    return open_site(options, bin_dir=bin_dir)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3, help="of each pgbench run")
    parser.add_argument("--bin-dir", type=Path)
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.rounds, arguments.seconds, arguments.bin_dir))
    print(f"CPU per transaction: ratio {figures.cpu_ratio():.3f} (best of {arguments.rounds})")
    for mode, ratios in figures.tps.items():
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"pgbench {mode}: ratio median {statistics.median(ratios):.3f} ({spread})")
    line = {
        "cpu_ratio": round(figures.cpu_ratio(), 4),
        "cpu_us": {name: round(min(values), 3) for name, values in figures.cpu_us.items()},
        "tps_ratio": {m: [round(r, 3) for r in ratios] for m, ratios in figures.tps.items()},
        "machine": machine(),
        "load": load_average(),
    }
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
