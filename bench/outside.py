"""What the servers themselves say of the cluster, without asking any daemon.

A daemon's picture may be a second old; before a fault, and after a recovery, the servers are asked.
Start reading at `at_rest`.
"""

from __future__ import annotations

import contextlib
import time

import psycopg

POLL_S = 0.1
REST_S = 2.0
WAITED_FOR = (
    "SELECT count(*) FROM pg_stat_replication"
    " WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')"
)
STREAMS = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"


def picture(dsns: dict[int, str]) -> tuple[list[int], list[int], int]:
    """(nodes out of recovery, nodes in recovery, replicas that stream from the first of them)."""
    primaries: list[int] = []
    replicas: list[int] = []
    streams = 0
    for node, dsn in dsns.items():
        with (
            contextlib.suppress(psycopg.Error),
            psycopg.connect(f"{dsn} connect_timeout=2", autocommit=True) as connection,
        ):
            row = connection.execute(f"SELECT pg_is_in_recovery(), ({STREAMS})").fetchone()
            assert row is not None
            (replicas if row[0] else primaries).append(node)
            streams = max(streams, 0 if row[0] else int(row[1]))
    return primaries, replicas, streams


def commits_wait(dsns: dict[int, str]) -> bool:
    """On a primary, commits wait for a replica that streams."""
    for dsn in dsns.values():
        with (
            contextlib.suppress(psycopg.Error),
            psycopg.connect(f"{dsn} connect_timeout=2", autocommit=True) as connection,
        ):
            row = connection.execute(f"SELECT NOT pg_is_in_recovery(), ({WAITED_FOR})").fetchone()
            if row is not None and row[0] and row[1]:
                return True
    return False


def complete(dsns: dict[int, str]) -> bool:
    """Exactly one primary, and every other node streams from it."""
    primaries, replicas, streams = picture(dsns)
    return len(primaries) == 1 and len(replicas) == streams == len(dsns) - 1


def at_rest(dsns: dict[int, str], deadline_s: float, rest_s: float = REST_S) -> float:
    """Seconds until the servers began to be `complete` without a break of `rest_s`.

    Raises TimeoutError with what was seen last if that was not so within `deadline_s`.
    """
    begun = time.monotonic()
    since = begun
    while time.monotonic() - begun < deadline_s + rest_s:
        if not complete(dsns):
            since = time.monotonic()
        elif time.monotonic() - since >= rest_s:
            return since - begun
        time.sleep(POLL_S)
    raise TimeoutError(
        f"within {deadline_s:g} s no one primary with all replicas streaming;"
        f" last (primaries, replicas, streams): {picture(dsns)}"
    )
