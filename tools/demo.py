"""The demonstration: a real three-node cluster that loses its primary's server, then a whole node.

Prints one line per act with its time. Exit status 1 if writing did not resume, or anything else did
not happen in time. KEEP=1 leaves the cluster running and prints how to connect.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

import psycopg

from tools.local_cluster import ClusterError, LocalCluster, wait_until
from tools.writers import Writers, create_table, present

RESUME_DEADLINE_S = 30
REJOIN_DEADLINE_S = 45


class Stage:
    """Prints acts with the seconds since the curtain rose."""

    def __init__(self) -> None:
        self._begun_s = time.monotonic()

    def act(self, text: str) -> None:
        print(f"[{time.monotonic() - self._begun_s:6.2f} s] {text}", flush=True)


def await_replica(cluster: LocalCluster, node: int) -> float:
    """Seconds until the node's own server says that it is a replica and streams.

    The daemons' picture of a node that was just killed may be a moment old; the server's is not.
    """

    def streams() -> bool:
        with (
            contextlib.suppress(psycopg.Error),
            psycopg.connect(f"{cluster.dsn(node)} connect_timeout=2", autocommit=True) as server,
        ):
            found = server.execute(
                "SELECT pg_is_in_recovery() AND EXISTS"
                " (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')"
            ).fetchone()
            return found is not None and bool(found[0])
        return False

    seconds = wait_until(f"node {node} streams as a replica", streams, REJOIN_DEADLINE_S)
    cluster.wait_healthy(REJOIN_DEADLINE_S)
    return seconds


def await_writing(writers: Writers, since_s: float, what: str) -> None:
    """Returns once writing flows again, by commits acknowledged after `since_s`."""
    deadline = time.monotonic() + RESUME_DEADLINE_S
    while time.monotonic() < deadline:
        recent = [ack for ack in writers.recorded.acks[-50:] if ack.at_s > since_s]
        if len(recent) >= 20 and time.monotonic() - recent[-1].at_s < 0.5:
            return
        time.sleep(0.02)
    raise ClusterError(f"writing did not resume within {RESUME_DEADLINE_S} s after {what}")


def fault(stage: Stage, cluster: LocalCluster, writers: Writers, node_too: bool) -> int:
    """Kill the primary's server, or its whole node; returns which node it was."""
    old = cluster.primary()
    if old is None:
        raise ClusterError("there is no primary to kill")
    what = f"node {old} (the primary) killed" if node_too else f"node {old}'s server killed"
    before_s = time.monotonic()
    cluster.kill_node(old) if node_too else cluster.kill_server(old)
    # The acknowledgements of the first instants may still be those of dying backends.
    await_writing(writers, before_s + 0.2, what)
    outage = writers.outage(before_s)
    stage.act(
        f"{what}: {outage.seconds * 1000:.0f} ms without writes, new primary is node {outage.after}"
    )
    return old


def play(stage: Stage, cluster: LocalCluster) -> None:
    cluster.start()
    begun_s = time.monotonic()
    created = cluster.create(3)
    stage.act(
        f"created: node {created['primary_node']} is primary, replicas"
        f" {created['replica_nodes']} stream, in {time.monotonic() - begun_s:.1f} s"
    )
    dsns = {node: cluster.dsn(node) for node in (1, 2, 3)}
    create_table(dsns)
    cluster.wait_healthy(REJOIN_DEADLINE_S)
    with Writers(dsns) as writers:
        await_writing(writers, 0, "the start")
        stage.act(f"writing: {writers.acked()} rows acknowledged so far")
        crashed = fault(stage, cluster, writers, node_too=False)
        await_replica(cluster, crashed)
        stage.act(f"node {crashed} has rejoined as a replica")
        lost = fault(stage, cluster, writers, node_too=True)
        cluster.spawn(lost)
        seconds = await_replica(cluster, lost)
        stage.act(f"node {lost}'s daemon started again: rejoined after {seconds:.1f} s")
    acknowledged = {ack.row for ack in writers.recorded.acks}
    node, rows = present(dsns)
    missing = len(acknowledged - rows)
    stage.act(
        f"rows acknowledged {len(acknowledged)}, of them present on node {node}:"
        f" {len(acknowledged) - missing}" + (f"; {missing} lost" if missing else "")
    )


def main() -> int:
    keep = os.environ.get("KEEP", "") not in ("", "0")
    stage = Stage()
    cluster = LocalCluster()
    try:
        play(stage, cluster)
    except (ClusterError, TimeoutError) as error:
        stage.act(f"FAILED: {error}")
        for node in (1, 2, 3):
            print(f"--- node {node}'s last words\n{cluster.last_words(node)}", file=sys.stderr)
        return 1
    finally:
        if keep:
            print(
                f"kept in {cluster.root}; stop it with: ramctrl --port {cluster.ports.http}"
                " cluster destroy"
            )
            for node in (1, 2, 3):
                print(f"  psql '{cluster.dsn(node)}'")
            print(f"  ramctrl --port {cluster.ports.http} cluster status")
        cluster.close(keep=keep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
