"""One connection to a server, never waiting longer than it was told.

psycopg's own connections answer a cancelled wait by asking the server to cancel and waiting again,
which hangs on a server that hangs. This drives libpq by `psycopg.pq` instead: any failure, timeout
or cancellation closes the socket at once. A session with `replication=database` takes SQL and
replication commands alike, and has its own reserve of connections (max_wal_senders), so a server
whose clients took every connection can still be looked at. Start reading at `Session`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable

import psycopg
from psycopg import pq

from ramd.domain.errors import PostgresError
from ramd.postgres.quote import conninfo
from ramd.postgres.site import Site

Row = tuple[str | None, ...]

RESULTS_MAX = 100
POLLS_MAX = 10_000


class SessionError(PostgresError):
    """The server refused, ended or never answered. `sqlstate` is empty for the last two."""

    def __init__(self, message: str, *, sqlstate: str = "", timed_out: bool = False) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.timed_out = timed_out


class Session:
    """One connection, for one task at a time. Any error but a refused statement closes it."""

    def __init__(self, conn: pq.abc.PGconn) -> None:
        self._conn = conn
        self._waiting: Waiting | None = None

    @classmethod
    async def open(cls, info: str, *, timeout_ms: int) -> Session:
        """Connect. Raises SessionError with the server's words, also when time is up."""
        conn = pq.PGconn.connect_start(info.encode())
        session = cls(conn)
        await session._bounded(session._connect, timeout_ms)
        conn.nonblocking = 1
        return session

    @property
    def usable(self) -> bool:
        return self._conn.status == pq.ConnStatus.OK

    def parameter(self, name: str) -> str:
        """A setting the server reported when it was connected to, such as server_version."""
        return (self._conn.parameter_status(name.encode()) or b"").decode()

    def encrypted_password(self, user: str, password: str) -> str:
        """The SCRAM verifier of a password, so that it never travels or is logged in the clear."""
        made = self._conn.encrypt_password(password.encode(), user.encode(), b"scram-sha-256")
        return made.decode()

    async def query(self, sql: str, *, timeout_ms: int) -> list[Row]:
        """Rows of the last statement in `sql`, as text. Raises SessionError."""
        return await self._bounded(lambda: self._query(sql), timeout_ms)

    def close(self) -> None:
        """At once, whatever state the connection is in; whoever waits on it gets SessionError.

        The event loop lets go of the descriptor first: its number is soon another file's, and what
        was still registered for it would make the loop deaf to that one.
        """
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.give_up()
        self._conn.finish()

    async def _ready(self, *, write: bool) -> None:
        """Returns when the socket can be read or, if `write`, written. Cancellable at once."""
        waiting = Waiting(self._conn.socket, write=write)
        self._waiting = waiting
        try:
            await waiting.ready
        finally:
            waiting.end()
            if self._waiting is waiting:
                self._waiting = None

    async def _bounded(
        self, action: Callable[[], Awaitable[list[Row]]], timeout_ms: int
    ) -> list[Row]:
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return await action()
        except TimeoutError:
            self.close()
            raise SessionError(f"no answer within {timeout_ms} ms", timed_out=True) from None
        except BaseException as error:
            if not isinstance(error, SessionError) or not error.sqlstate:
                self.close()
            raise

    async def _connect(self) -> list[Row]:
        conn = self._conn
        for _ in range(POLLS_MAX):
            if conn.status == pq.ConnStatus.BAD:
                break
            step = conn.connect_poll()
            if step == pq.PollingStatus.OK:
                return []
            if step == pq.PollingStatus.FAILED:
                break
            await self._ready(write=step == pq.PollingStatus.WRITING)
        message = plain(conn.get_error_message())
        # A server that does not accept leaves its socket's queue full: the kernel says EAGAIN.
        raise SessionError(message, timed_out=os.strerror(errno.EAGAIN) in message)

    async def _query(self, sql: str) -> list[Row]:
        conn = self._conn
        if not self.usable:
            raise SessionError("the connection is closed")
        try:
            conn.send_query(sql.encode())
            while conn.flush():
                await self._ready(write=True)
            rows: list[Row] = []
            failed: SessionError | None = None
            for _ in range(RESULTS_MAX):
                while conn.is_busy():
                    await self._ready(write=False)
                    conn.consume_input()
                result = conn.get_result()
                if result is None:
                    break
                failed = failed or failure(result)
                rows = rows_of(result)
        except psycopg.Error as error:
            raise SessionError(plain(str(error))) from error
        if failed is not None:
            raise failed
        return rows


def failure(result: pq.abc.PGresult) -> SessionError | None:
    """The error a result stands for, or None."""
    if result.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        return None
    sqlstate = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    return SessionError(plain(result.get_error_message()), sqlstate=sqlstate)


def rows_of(result: pq.abc.PGresult) -> list[Row]:
    """Its rows as text; NULL is None."""
    columns = range(result.nfields)
    return [
        tuple(text(result.get_value(row, column)) for column in columns)
        for row in range(result.ntuples)
    ]


def text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def plain(message: str) -> str:
    """A server's message on one line, without the address and severity in front."""
    line = " ".join(message.split())
    for severity in ("FATAL: ", "ERROR: ", "PANIC: "):
        line = line.rpartition(severity)[2]
    return line.strip() or "connection lost"


class Waiting:
    """One wait for a socket, registered with the event loop until `end`."""

    def __init__(self, descriptor: int, *, write: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._write = write
        self.ready: asyncio.Future[None] = self._loop.create_future()
        add = self._loop.add_writer if write else self._loop.add_reader
        add(descriptor, self._wake)

    def give_up(self) -> None:
        """The connection is closed by somebody else."""
        self.end()
        if not self.ready.done():
            self.ready.set_exception(SessionError("the connection was closed"))

    def end(self) -> None:
        """Nothing is registered any more. Idempotent: a number is let go of only once."""
        if self._descriptor >= 0:
            remove = self._loop.remove_writer if self._write else self._loop.remove_reader
            remove(self._descriptor)
            self._descriptor = -1

    def _wake(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)


def local_conninfo(site: Site, *, replication: bool) -> str:
    """How the daemon logs in at its own server: superuser, by the private socket."""
    return conninfo(
        {
            "host": str(site.socket_dir),
            "port": str(site.options.port),
            "user": site.options.superuser,
            "dbname": site.options.database,
            "application_name": "ramd",
            "replication": "database" if replication else "",
            "options": "-c statement_timeout=60s -c synchronous_commit=local",
        }
    )


async def open_local(site: Site, *, timeout_ms: int, replication: bool = True) -> Session:
    """A session with the own server."""
    return await Session.open(local_conninfo(site, replication=replication), timeout_ms=timeout_ms)


async def open_peer(info: str, host: str, *, timeout_ms: int) -> Session:
    """A session with another node's server. Its name is looked up beside the event loop: libpq
    would stop everything for as long as the name service takes."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        raise SessionError(f"the address of {host} is not known: {error}") from error
    return await Session.open(f"{info} hostaddr={found[0][4][0]}", timeout_ms=timeout_ms)
