"""Random faults, one after another, on a real three-node cluster; no step is done by hand.

Each round kills the server or the whole node of the primary or of a replica, starts a killed node's
daemon again with its own command line, and waits for one primary with every other member streaming.
Replication is asynchronous, so acknowledged rows may be lost: they are counted and printed. A row
that a replica was seen to have must never be lost. Exit status 1 if a round does not heal in time
or such a row is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import threading
import time
from dataclasses import dataclass, field

import psycopg

from bench.outside import at_rest
from tools.local_cluster import ClusterError, LocalCluster, wait_until
from tools.writers import (
    TABLE,
    Writers,
    connect,
    create_table,
    hang_up,
    present,
    run,
)

HEAL_DEADLINE_S = 90
REST_S = 1.0
NODES = (1, 2, 3)


class Witnesses:
    """One reader per host: which rows were ever visible on it while it was a replica."""

    POLL_S = 0.05

    def __init__(self, dsns: dict[int, str]) -> None:
        self._dsns = dsns
        self.seen: dict[int, set[int]] = {node: set() for node in dsns}
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run()), name="witnesses", daemon=True
        )

    def __enter__(self) -> Witnesses:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def rows(self) -> set[int]:
        return set().union(*self.seen.values())

    async def _run(self) -> None:
        tasks = [asyncio.create_task(self._read(node, dsn)) for node, dsn in self._dsns.items()]
        await asyncio.to_thread(self._stop.wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, node: int, dsn: str) -> None:
        connection: psycopg.AsyncConnection[tuple[object, ...]] | None = None
        try:
            while True:
                try:
                    if connection is None:
                        connection = await connect(dsn)
                    newest = max(self.seen[node], default=0)
                    # Rows come in almost rising order: look back far enough to catch the rest.
                    cursor = await run(
                        connection,
                        f"SELECT row FROM {TABLE} WHERE row > {newest - 500}"
                        " AND pg_is_in_recovery()",
                    )
                    self.seen[node].update(int(str(row)) for (row,) in await cursor.fetchall())
                except (psycopg.Error, OSError, TimeoutError):
                    hang_up(connection)
                    connection = None
                await asyncio.sleep(self.POLL_S)
        finally:
            hang_up(connection)


@dataclass(slots=True)
class Tally:
    """What the soak has seen so far."""

    rounds: int = 0
    outages_ms: dict[str, list[float]] = field(default_factory=dict)
    heals_s: list[float] = field(default_factory=list)


def one_fault(cluster: LocalCluster, writers: Writers, rng: random.Random, tally: Tally) -> None:
    primary = cluster.primary()
    if primary is None:
        raise ClusterError("no primary before the fault")
    of_primary = rng.random() < 0.6
    node = primary if of_primary else rng.choice([n for n in NODES if n != primary])
    whole = rng.random() < 0.5
    kind = f"{'node' if whole else 'server'} of {'primary' if of_primary else 'replica'}"
    begun_s = time.monotonic()
    if whole:
        cluster.kill_node(node)
        # A machine takes a moment to come back; long enough that the lease may run out.
        pause_s = rng.choice((0.0, 1.0, 5.0))
        wait_until("the pause", lambda: time.monotonic() - begun_s >= pause_s, pause_s + 5)
        cluster.spawn(node)
    else:
        cluster.kill_server(node)
    wait_until(
        f"writes after the {kind} {node} was killed",
        lambda: writers.last_ack_s() > begun_s + 0.5,
        HEAL_DEADLINE_S,
    )
    cluster.wait_healthy(HEAL_DEADLINE_S)
    # The daemons' picture may be a second old; the servers know, and have to stay so a moment.
    at_rest(writers.dsns, HEAL_DEADLINE_S, REST_S)
    tally.rounds += 1
    tally.heals_s.append(time.monotonic() - REST_S - begun_s)
    outage_ms = writers.outage(begun_s).seconds * 1000
    tally.outages_ms.setdefault(kind, []).append(outage_ms)
    print(
        f"{tally.rounds:3d} {kind:18s} node {node}: {outage_ms:6.0f} ms without writes,"
        f" healthy after {tally.heals_s[-1]:5.1f} s, primary is node {cluster.primary()}",
        flush=True,
    )


def summary(tally: Tally, writers: Writers, witnesses: Witnesses, dsns: dict[int, str]) -> int:
    """Print the result; returns how many rows were lost that a replica had been seen to have."""
    _, rows = present(dsns)
    acknowledged = {ack.row for ack in writers.recorded.acks}
    broken = witnesses.rows() - rows
    result = {
        "faults": tally.rounds,
        "acknowledged": len(acknowledged),
        "lost": len(acknowledged - rows),
        "lost_though_seen_on_a_replica": len(broken),
        "outage_ms_max": {k: round(max(v)) for k, v in sorted(tally.outages_ms.items())},
        "outage_ms_median": {
            k: round(sorted(v)[len(v) // 2]) for k, v in sorted(tally.outages_ms.items())
        },
        "healthy_after_s_max": round(max(tally.heals_s), 1) if tally.heals_s else None,
    }
    print(json.dumps(result))
    return len(broken)


def soak(faults: int, minutes: float, seed: int) -> int:
    rng = random.Random(seed)
    print(f"seed {seed}: up to {faults} faults or {minutes:g} minutes", flush=True)
    cluster = LocalCluster()
    until_s = time.monotonic() + minutes * 60
    tally = Tally()
    try:
        cluster.start()
        cluster.create(len(NODES))
        dsns = {node: cluster.dsn(node) for node in NODES}
        create_table(dsns)
        cluster.wait_healthy(HEAL_DEADLINE_S)
        with Writers(dsns) as writers, Witnesses(dsns) as witnesses:
            wait_until("first writes", lambda: writers.acked() > 50, 30)
            while tally.rounds < faults and time.monotonic() < until_s:
                one_fault(cluster, writers, rng, tally)
        return 1 if summary(tally, writers, witnesses, dsns) else 0
    except (ClusterError, TimeoutError) as error:
        print(f"FAILED in round {tally.rounds + 1} (seed {seed}): {error}")
        for node in NODES:
            print(f"--- node {node}\n{cluster.last_words(node)}")
        with contextlib.suppress(OSError):
            print(f"kept in {cluster.root}")
        cluster.close(keep=True)
        return 1
    finally:
        if tally.rounds >= faults or time.monotonic() >= until_s:
            cluster.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    return soak(arguments.faults, arguments.minutes, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
