"""Commits that are held after their flush, until a test lets them go."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.extension_lab import Connection, LabServer
from tests.support.raw_client import RawClient
from tests.support.wait import wait_for

DEADLINE_S = 30.0
UNHELD = b"SET synchronous_commit = local; SET pgraft.min_synchronous_commit = local"
"""Of a session whose own commits are not to wait."""


class Held:
    """A server whose commits wait for a replica that does not exist. Start at `hold_commits`."""

    def __init__(self, server: LabServer, watcher: Connection) -> None:
        self.server = server
        self._watcher = watcher

    def until_waiting(self, event: str = "SyncRep") -> int:
        """Process of the one session that waits so."""

        return wait_for(
            lambda: self._first_waiting(event), DEADLINE_S, f"a session waits for {event}"
        )

    def _first_waiting(self, event: str = "SyncRep") -> int:
        row = self._watcher.execute(
            "SELECT min(pid) FROM pg_stat_activity WHERE wait_event = %s", (event,)
        ).fetchone()
        assert row is not None
        return row[0] or 0

    def until_defined(self) -> None:
        """The checkpointer tells all processes that there are synchronous replicas to wait for; a
        commit of before is not held."""

        def holds() -> bool:
            with RawClient(self.server.site) as client:
                client.query("CREATE TABLE probed (n int); DROP TABLE probed")
                while not (held := self._first_waiting()):
                    if client.answers():
                        return False
                self.cancel(held)
                client.until_ready()
                return True

        wait_for(holds, DEADLINE_S, "commits are held")

    def let_go(self) -> None:
        """Who waits need not wait any longer."""
        self.reload("synchronous_standby_names", "")

    def cancel(self, pid: int) -> None:
        """As a client's cancel request does."""
        self.end_wait(pid, "pg_cancel_backend")

    def end_wait(self, pid: int, how: str) -> None:
        """`pg_cancel_backend`, or `pg_terminate_backend` as an operator does."""
        self._watcher.execute(f"SELECT {how}(%s)".encode(), (pid,))

    def prepare(self, name: str) -> None:
        """A prepared transaction with one row, made without a wait."""
        with self.server.connect() as session:
            session.execute(UNHELD)
            session.execute("BEGIN")
            session.execute("INSERT INTO kept VALUES (1)")
            session.execute(f"PREPARE TRANSACTION '{name}'")

    def clear_prepared(self) -> None:
        """Roll back whatever a test left prepared."""
        self.server.lease()
        for row in self._watcher.execute("SELECT gid FROM pg_prepared_xacts").fetchall():
            self._watcher.execute(f"ROLLBACK PREPARED '{row[0]}'")

    def reload(self, setting: str, value: str) -> None:
        """Change one setting of the running server, and wait until sessions have it."""
        reload(self.server, setting, value)


def reload(server: LabServer, setting: str, value: str) -> None:
    """Change one setting of a running server, and wait until sessions have it."""
    server.settings[setting] = value
    server.configure()
    os.kill(server.pid, signal.SIGHUP)
    wait_for(lambda: server.ask(f"SHOW {setting}") == value, DEADLINE_S, f"{setting} is set")


@contextmanager
def hold_commits(server: LabServer) -> Iterator[Held]:
    """Commits of `server` wait inside, unless they asked not to."""
    with server.connect() as watcher:
        watcher.execute(UNHELD)
        held = Held(server, watcher)
        held.reload("synchronous_standby_names", "nobody")
        held.until_defined()
        try:
            yield held
        finally:
            held.let_go()
            held.clear_prepared()
