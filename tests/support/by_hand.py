"""What people do behind RAMD's back: a server started by hand, and what it answers to a write."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from ramd.postgres.account import owner_account
from ramd.postgres.binaries import find_postgres
from tests.support.cluster_stories import SOON_S, ask
from tools.local_cluster import LocalCluster

READ_ONLY = "25006"


def refuses(cluster: LocalCluster, node: int) -> bool:
    """A write on `node` is refused with the state that drivers know: it has no lease, or is a
    replica."""
    try:
        ask(cluster, node, "DELETE FROM story WHERE false")
    except psycopg.Error as error:
        return error.sqlstate == READ_ONLY
    return False


@contextmanager
def started_by_hand(
    cluster: LocalCluster, node: int, *, end: signal.Signals = signal.SIGQUIT
) -> Iterator[int]:
    """PostgreSQL on a node's data directory, as its user and as a primary; no daemon has a hand in
    it. Its pid; ended by `end`."""
    data_dir = cluster.places.data_dir(node)
    (data_dir / "standby.signal").unlink(missing_ok=True)
    account = owner_account(data_dir)
    who = (account.uid, account.gid) if account.drops else (None, None)
    server = subprocess.Popen(
        [find_postgres(None).tool("postgres"), "-D", str(data_dir)],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=who[0],
        group=who[1],
        start_new_session=True,
    )
    try:
        yield server.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.send_signal(end)
        server.wait(SOON_S)
