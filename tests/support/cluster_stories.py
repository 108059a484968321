"""What the stories of tests/e2e have in common: clusters that always end, writing and comparing.

Lives here: a real cluster for the length of a test file, SQL as a client does it, and the one
comparison that matters: the same rows and the same history on every node. Start at `Clusters`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.support.ports import free_port_block
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster, Ports
from tools.local_processes import belonging_to, send

NODES = (1, 2, 3)
NODES_MAX = 4
HEAL_S = 90.0
SOON_S = 30.0
TABLE = "story"


class Clusters:
    """Every cluster of a test file; `close` ends and removes them all."""

    def __init__(self) -> None:
        self.open: list[LocalCluster] = []

    def make(
        self,
        *,
        own_confs: bool = False,
        prefix: tuple[str, ...] = (),
        parent: Path | None = None,
        settings: dict[str, object] | None = None,
        nodes: int = NODES_MAX,
    ) -> LocalCluster:
        """Places and free ports for up to `nodes` nodes; nothing runs yet."""
        cluster = LocalCluster(
            ports=four_blocks(nodes),
            settings=settings,
            own_confs=own_confs,
            prefix=prefix,
            parent=parent,
        )
        self.open.append(cluster)
        return cluster

    def three_nodes(self, **settings: object) -> LocalCluster:
        """A healthy cluster of three with the table of the stories in it."""
        cluster = self.make(settings=settings)
        cluster.start()
        cluster.create(len(NODES))
        cluster.wait_healthy(HEAL_S)
        make_table(cluster)
        return cluster

    def last_words(self) -> str:
        """For the report of a failed test."""
        nodes = ((c, n) for c in self.open for n in range(1, NODES_MAX + 1))
        words = ((f"{c.root} node {n}", c.last_words(n)) for c, n in nodes)
        return "\n".join(f"--- {where}\n{said}" for where, said in words if said)

    def close(self) -> None:
        for cluster in self.open:
            cluster.close()


def four_blocks(nodes: int = NODES_MAX) -> Ports:
    """Free ports for `nodes` nodes, not given out twice among the test processes."""
    block = free_port_block(4 * nodes)
    first = (block[start] for start in range(0, 4 * nodes, nodes))
    postgresql, raft, http, prometheus = first
    return Ports(postgresql=postgresql, raft=raft, http=http, prometheus=prometheus)


# --- SQL -------------------------------------------------------------------------------------


@contextmanager
def client(cluster: LocalCluster, node: int) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A client by TCP, committing each statement."""
    with psycopg.connect(f"{cluster.dsn(node)} connect_timeout=5", autocommit=True) as connection:
        yield connection


def ask(cluster: LocalCluster, node: int, sql: str) -> list[tuple[Any, ...]]:
    """Rows of one statement on a node. Raises psycopg.Error."""
    with client(cluster, node) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def make_table(cluster: LocalCluster) -> None:
    """The table of the stories, on whichever node is primary."""
    node = cluster.primary()
    assert node is not None
    ask(cluster, node, f"CREATE TABLE IF NOT EXISTS {TABLE}(row bigint PRIMARY KEY)")


def write(cluster: LocalCluster, rows: Iterable[int], within_s: float = SOON_S) -> set[int]:
    """Rows acknowledged by whoever is primary, written as soon as one takes them."""
    wanted = sorted(rows)
    values = ", ".join(f"({row})" for row in wanted)

    def taken() -> bool:
        for node in nodes_of(cluster):
            with contextlib.suppress(psycopg.Error):
                ask(cluster, node, f"INSERT INTO {TABLE} VALUES {values} ON CONFLICT DO NOTHING")
                return True
        return False

    wait_for(taken, within_s, f"a primary takes rows {wanted[0]} to {wanted[-1]}")
    return set(wanted)


def rows_on(cluster: LocalCluster, node: int) -> set[int] | None:
    """The rows a node shows, None while it does not answer."""
    try:
        return {row for (row,) in ask(cluster, node, f"SELECT row FROM {TABLE}")}
    except psycopg.Error:
        return None


def nodes_of(cluster: LocalCluster) -> tuple[int, ...]:
    """Ids of the nodes that have a file."""
    return tuple(n for n in range(1, NODES_MAX + 1) if cluster.places.conf(n).exists())


def same_everywhere(
    cluster: LocalCluster, acknowledged: set[int], nodes: tuple[int, ...] = NODES
) -> set[int]:
    """Every node shows the same rows, all acknowledged ones among them; returns the rows."""

    def equal() -> set[int] | None:
        shown = [rows_on(cluster, node) for node in nodes]
        first = shown[0]
        if first is None or any(rows != first for rows in shown):
            return None
        return first if acknowledged <= first else None

    return wait_for(equal, SOON_S, f"{len(acknowledged)} rows on each of {nodes}") or set()


# --- the cluster -----------------------------------------------------------------------------


def epoch_of(cluster: LocalCluster) -> int:
    """The present epoch, 0 while nobody answers."""
    status = cluster.status()
    return int(status["epoch"]) if status else 0


def primary_of(cluster: LocalCluster) -> int:
    """The primary of a cluster that must have one."""
    primary = cluster.primary()
    assert primary is not None, cluster.status()
    return primary


def replicas_of(cluster: LocalCluster) -> list[int]:
    """Everybody but the primary."""
    primary = primary_of(cluster)
    return [node for node in nodes_of(cluster) if node != primary]


@contextmanager
def nothing_leaves(cluster: LocalCluster, node: int) -> Iterator[None]:
    """The walsenders of a node are stopped inside: what is committed there stays there."""
    senders = ask(
        cluster, node, "SELECT pid FROM pg_stat_replication WHERE application_name ~ '^ramd_node_'"
    )
    assert len(senders) == 2
    for (pid,) in senders:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for (pid,) in senders:
            send(pid, signal.SIGCONT)


def commits_wait_for_nobody(cluster: LocalCluster) -> None:
    """Else nothing that only the primary has would ever be acknowledged."""
    primary = primary_of(cluster)
    answer = cluster.api(primary, "POST", "/replication/sync", {"mode": "off"}, timeout_s=30)
    assert answer[0] == 200, answer

    def settled() -> bool:
        found = cluster.status()
        if found is None or found["sync"]["synchronous"] or found["sync"]["changing_to"]:
            return False
        return ask(cluster, primary, "SHOW synchronous_standby_names") == [("",)]

    wait_for(settled, HEAL_S, "commits wait for nobody")


def wait_new_epoch(cluster: LocalCluster, old: int, within_s: float = HEAL_S) -> int:
    """The primary of an epoch after `old`, serving, with everybody streaming from it."""
    wait_for(lambda: epoch_of(cluster) > old, within_s, f"an epoch after {old}")
    cluster.wait_healthy(within_s)
    return primary_of(cluster)


def wait_server_back(cluster: LocalCluster, node: int, old_pid: int | None) -> None:
    """Another postmaster than `old_pid` runs on a node, and the cluster is healthy."""

    def other() -> bool:
        return cluster.processes.postmaster_pid(node) not in (None, old_pid)

    wait_for(other, HEAL_S, f"another server on node {node}")
    cluster.wait_healthy(HEAL_S)


def lineage(cluster: LocalCluster, node: int) -> tuple[int, str]:
    """(timeline, its history file) of a running server."""
    sql = (
        "SELECT CASE WHEN pg_is_in_recovery() THEN"
        " (SELECT received_tli FROM pg_stat_wal_receiver)"
        " ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END"
    )
    timeline = int(ask(cluster, node, sql)[0][0])
    history = cluster.places.data_dir(node) / "pg_wal" / f"{timeline:08X}.history"
    return timeline, history.read_text() if history.exists() else ""


def one_lineage(cluster: LocalCluster, nodes: tuple[int, ...] = NODES) -> int:
    """All nodes are on one timeline with one history; returns the timeline."""

    def agreed() -> int | None:
        try:
            seen = {lineage(cluster, node) for node in nodes}
        except (psycopg.Error, TypeError):
            return None  # somebody does not stream at this instant
        return next(iter(seen))[0] if len(seen) == 1 else None

    return wait_for(agreed, SOON_S, f"one history on {nodes}") or 0


def envelope(answer: tuple[int, dict[str, Any]]) -> tuple[int, str, str]:
    """(HTTP status, error code, message) of a refused request."""
    status, body = answer
    details = body.get("details") or {}
    return status, str(details.get("error", "")), f"{body.get('message')} {details}"


def event(cluster: LocalCluster, node: int, name: str) -> bool:
    """A node's daemon has logged an event of that name."""
    log = cluster.places.log(node)
    return log.exists() and f"event={name} " in log.read_text(errors="replace")


def event_lines(cluster: LocalCluster, node: int, name: str) -> list[str]:
    """Every line in which a node's daemon has logged an event of that name, oldest first."""
    log = cluster.places.log(node)
    if not log.exists():
        return []
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if f"event={name} " in line]


def decided(cluster: LocalCluster, node: int, rule: str) -> list[dict[str, Any]]:
    """What the group has recorded under a rule, newest first, as a node's daemon shows it."""
    found = cluster.api(node, "GET", f"/cluster/decisions?limit=100&rule={rule}")
    records: list[dict[str, Any]] = found[1]["data"]["decisions"]
    return records


def node_of(cluster: LocalCluster, node: int, *, asked: int | None = None) -> dict[str, Any]:
    """What the daemon of node `asked` (the node itself, if None) shows of a node."""
    found = cluster.api(asked or node, "GET", f"/nodes/{node}")
    shown: dict[str, Any] = found[1]["data"]
    return shown


def listing(root: Path, ignore: tuple[str, ...] = ("logs", ".out")) -> dict[str, str]:
    """Every path below `root` with mode, owner and content, to be compared; logs left out."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.startswith(ignore) or name.endswith(ignore):
            continue
        stat = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[name] = f"{stat.st_mode:o} {stat.st_uid} {content}"
    return found


def processes_of(cluster: LocalCluster) -> set[int]:
    """Every process of a cluster that lives now."""
    return set(belonging_to(cluster.root))
