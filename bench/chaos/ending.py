"""What the servers hold when the faults are over and nobody writes: read once, for the verdict.

Lives here: SQL on servers at rest. Must not live here: judging. Start reading at `read_final`.
"""

from __future__ import annotations

import contextlib
import http.client
from typing import Any

import psycopg

from bench.chaos import load
from bench.chaos.clients import COUNTERS, ROWS
from bench.chaos.history import Copy, Final
from bench.outside import at_rest, picture
from tools.local_cluster import ClusterError, LocalCluster, wait_until

TIMELINE = (
    "SELECT CASE WHEN pg_is_in_recovery()"
    " THEN (SELECT received_tli FROM pg_stat_wal_receiver)"
    " ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END"
)
TABLES = (ROWS, COUNTERS, *load.TABLES)


def read_final(dsns: dict[int, str], deadline_s: float) -> Final:
    """Wait for one primary with everybody streaming and replayed, then read all of them.

    Raises ClusterError, TimeoutError, psycopg.Error.
    """
    at_rest(dsns, deadline_s)
    primaries, _, _ = picture(dsns)
    if len(primaries) != 1:
        raise ClusterError(f"primaries at the end: {primaries}")
    primary = primaries[0]
    end = one(dsns[primary], "SELECT pg_current_wal_lsn()::text")[0][0]
    wait_until(
        f"every replica has replayed up to {end}",
        lambda: all(replayed(dsns[node], end) for node in dsns if node != primary),
        deadline_s,
    )
    found = one(dsns[primary], f"SELECT client, number, part, count(*) FROM {ROWS} GROUP BY 1,2,3")
    counters = one(dsns[primary], f"SELECT counter, value FROM {COUNTERS}")
    return Final(
        primary=primary,
        rows={(client, number, part): times for client, number, part, times in found},
        counters=dict(counters),
        copies=tuple(copy_of(node, dsn) for node, dsn in dsns.items()),
        balances=tuple(one(dsns[primary], load.SUMS)[0]),
    )


def replayed(dsn: str, lsn: str) -> bool:
    with contextlib.suppress(psycopg.Error):
        return bool(one(dsn, f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'::pg_lsn")[0][0])
    return False


def copy_of(node: int, dsn: str) -> Copy:
    """Of one server. Raises psycopg.Error, ClusterError."""
    timeline = one(dsn, TIMELINE)[0][0]
    if timeline is None:
        raise ClusterError(f"node {node} does not stream at the end")
    name = f"pg_wal/{timeline:08X}.history"
    lineage = one(dsn, f"SELECT pg_read_file('{name}', true)")[0][0] if timeline > 1 else ""
    sums = []
    for table in TABLES:
        hashes = f"SELECT count(*), sum(hashtextextended(t::text, 0))::text FROM {table} t"
        rows, sum_of_hashes = one(dsn, hashes)[0]
        sums.append((table, int(rows), str(sum_of_hashes)))
    return Copy(node=node, timeline=timeline, lineage=str(lineage), sums=tuple(sums))


def one(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    """The rows of one statement on a connection of its own. Raises psycopg.Error."""
    with psycopg.connect(f"{dsn} connect_timeout=5", autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def set_restored(cluster: LocalCluster, nodes: int) -> bool:
    """By the group's account commits wait, every replica may confirm them, and that is proven."""
    for node in range(1, nodes + 1):
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
            status, answer = cluster.api(node, "GET", "/replication/sync", timeout_s=2)
            if status == 200:
                data = answer["data"]
                members = [one for one in data["nodes"] if one["member"] and one["streaming"]]
                waits = data["synchronous"] and data["proven"] and data["changing_to"] is None
                return bool(waits) and len(members) == nodes - 1
    return False
