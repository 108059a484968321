"""Random faults, one after another, on a real three-node cluster; no step is done by hand.

Each round kills the server or the whole node of the primary or of a replica, starts a killed node's
daemon again with its own command line, and waits for one primary with every other member streaming.
Acknowledged rows that are lost are counted and printed; where commits do not wait for a replica
there may be some. A row that a replica was seen to have must never be lost. Exit status 1 if a
round does not heal in time or such a row is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
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
FIRST_ROWS = 50


class Witnesses:
    """One reader per host: which rows were ever visible on it although it had not written them.

    A former primary that starts again as a replica shows the end of its own WAL until it is
    rewound: its own rows prove nothing about what a replica had received.
    """

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
                        f" AND node <> {node} AND pg_is_in_recovery()",
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
    acknowledged: int = 0
    lost: int = 0
    broken: set[int] = field(default_factory=set)
    """Rows that are missing although a replica had been seen to have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A cluster, and the clients that watch it."""

    cluster: LocalCluster
    writers: Writers
    witnesses: Witnesses


def one_fault(scene: Scene, rng: random.Random, tally: Tally) -> None:
    """Do harm, wait for recovery, count what is missing. Raises ClusterError, TimeoutError."""
    cluster, writers = scene.cluster, scene.writers
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
    healed_s = time.monotonic() - REST_S - begun_s
    count(scene, tally)
    outage_ms = writers.outage(begun_s).seconds * 1000
    tally.rounds += 1
    tally.heals_s.append(healed_s)
    tally.outages_ms.setdefault(kind, []).append(outage_ms)
    print(
        f"{tally.rounds:3d} {kind:18s} node {node}: {outage_ms:6.0f} ms without writes,"
        f" healthy after {healed_s:5.1f} s, primary is node {cluster.primary()},"
        f" {tally.lost} rows lost so far",
        flush=True,
    )


def count(scene: Scene, tally: Tally) -> None:
    """What is missing on the primary of what was acknowledged, or seen on a replica, until now.

    Raises ClusterError if a row is missing that a replica had.
    """
    acknowledged = {ack.row for ack in list(scene.writers.recorded.acks)}
    witnessed = scene.witnesses.rows()
    node, rows = present(scene.writers.dsns)
    tally.acknowledged = len(acknowledged)
    tally.lost = len(acknowledged - rows)
    tally.broken = witnessed - rows
    if tally.broken:
        seen = {n: sorted(tally.broken & rows) for n, rows in scene.witnesses.seen.items()}
        raise ClusterError(f"node {node} misses rows that were seen on a replica: {seen}")


def summary(tally: Tally) -> None:
    """Print the result."""
    result = {
        "faults": tally.rounds,
        "acknowledged": tally.acknowledged,
        "lost": tally.lost,
        "lost_though_seen_on_a_replica": len(tally.broken),
        "outage_ms_max": {k: round(max(v)) for k, v in sorted(tally.outages_ms.items())},
        "outage_ms_median": {
            k: round(statistics.median(v)) for k, v in sorted(tally.outages_ms.items())
        },
        "healthy_after_s_max": round(max(tally.heals_s), 1) if tally.heals_s else None,
    }
    print(json.dumps(result))


def soak(faults: int, minutes: float, seed: int) -> int:
    """Exit status of the whole."""
    rng = random.Random(seed)
    print(f"seed {seed}: up to {faults} faults or {minutes:g} minutes", flush=True)
    cluster = LocalCluster()
    until_s = time.monotonic() + minutes * 60
    tally = Tally()
    failed = False
    try:
        cluster.start()
        cluster.create(len(NODES))
        dsns = {node: cluster.dsn(node) for node in NODES}
        create_table(dsns)
        cluster.wait_healthy(HEAL_DEADLINE_S)
        with Writers(dsns) as writers, Witnesses(dsns) as witnesses:
            scene = Scene(cluster=cluster, writers=writers, witnesses=witnesses)
            wait_until("first writes", lambda: writers.acked() > FIRST_ROWS, 30)
            while tally.rounds < faults and time.monotonic() < until_s:
                one_fault(scene, rng, tally)
    except (ClusterError, TimeoutError) as error:
        failed = True
        print(f"FAILED in round {tally.rounds + 1} (seed {seed}): {error}")
        for node in NODES:
            print(f"--- node {node}\n{cluster.last_words(node)}")
        print(f"kept, still running, in {cluster.root}")
    finally:
        cluster.close(keep=failed)
    summary(tally)
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    return soak(arguments.faults, arguments.minutes, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
