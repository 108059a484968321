"""One look at the running server: a cheap round trip or two each second.

A primary is asked for its insert position by SQL. A replica's position is IDENTIFY_SYSTEM's: the
greater of received and replayed on the timeline it replays (walsender.c, GetStandbyFlushRecPtr).
Start reading at `Link.facts`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ramd.domain.lsn import Lsn, parse_lsn
from ramd.domain.observation import Position, ServerRole
from ramd.domain.server import ServerFacts, Upstream
from ramd.postgres.session import Row, Session, SessionError, open_local
from ramd.postgres.site import Site
from ramd.postgres.standbys import SLOT_PREFIX, STREAMS

TOO_MANY = ("too many clients", "too many connections", "connection slots", "max_wal_senders")
"""Words of a server that answers, only not to one more client (SQLSTATE 53300)."""

PROVEN_MS = 150
"""A WAL receiver calls itself streaming from its start (walreceiver.c, WalReceiverMain), also one
that is about to be turned away and comes back as another process: it counts once it has lasted."""

FACTS = f"""
SELECT pg_is_in_recovery(),
  CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
       ELSE pg_current_wal_insert_lsn() END,
  CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_insert_lsn()) END,
  pg_last_wal_receive_lsn() IS NOT DISTINCT FROM pg_last_wal_replay_lsn(),
  extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()),
  r.sender_host, r.sender_port,
  (SELECT string_agg(DISTINCT substr(application_name, {len(SLOT_PREFIX) + 1}, 1), ' ')
     FROM pg_stat_replication
    WHERE state = 'streaming' AND application_name ~ '{STREAMS}'),
  (extract(epoch FROM clock_timestamp() - r.last_msg_receipt_time) * 1e9)::bigint
  FROM (SELECT 1) AS one LEFT JOIN (pg_stat_wal_receiver r JOIN pg_stat_activity a
       ON a.pid = r.pid AND a.backend_start < clock_timestamp() - interval '{PROVEN_MS} ms')
       ON r.status = 'streaming'
"""

BIRTH = """
SELECT system_identifier,
       (extract(epoch FROM pg_postmaster_start_time()) * 1000)::bigint
  FROM pg_control_system()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """What stays the same as long as the server runs."""

    system_id: str
    started_unix_ms: int
    version: str


class Link:
    """The persistent session with the own server, shared by short reads. Opened when needed,
    dropped at the first trouble."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = asyncio.Lock()
        self._session: Session | None = None
        self._birth: Birth | None = None

    def drop(self) -> None:
        """Forget the connection: the server behind it ended or is another one now."""
        if self._session is not None:
            self._session.close()
        self._session = None
        self._birth = None

    @asynccontextmanager
    async def session(self, *, timeout_ms: int) -> AsyncIterator[Session]:
        """The session, for this task alone. SessionError when it cannot be had in time."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._lock.acquire()
        except TimeoutError:
            raise SessionError("another question is still open", timed_out=True) from None
        try:
            if self._session is None or not self._session.usable:
                self.drop()
                self._session = await open_local(self._site, timeout_ms=left(started, timeout_ms))
            yield self._session
        finally:
            if self._session is not None and not self._session.usable:
                self.drop()
            self._lock.release()

    async def query(self, sql: str, *, timeout_ms: int) -> list[Row]:
        """One statement. Raises SessionError, in time."""
        started = time.monotonic()
        async with self.session(timeout_ms=timeout_ms) as session:
            return await session.query(sql, timeout_ms=left(started, timeout_ms))

    async def facts(self, upstream: Upstream | None, *, timeout_ms: int) -> ServerFacts:
        """What the server says now; never later than `timeout_ms`, never an exception."""
        started, asked_ns = time.monotonic(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        try:
            async with self.session(timeout_ms=timeout_ms) as session:
                birth = await self._known_birth(session, left(started, timeout_ms))
                row = (await session.query(FACTS, timeout_ms=left(started, timeout_ms)))[0]
                position = (
                    await identify(session, timeout_ms=left(started, timeout_ms))
                    if row[0] == "t"
                    else Position(timeline=int((row[2] or "0")[:8], 16), lsn=lsn(row[1]) or Lsn(0))
                )
        except SessionError as error:
            return refusal(error)
        return read_facts(row, birth, position, upstream, asked_ns=asked_ns)

    async def _known_birth(self, session: Session, timeout_ms: int) -> Birth:
        if self._birth is None:
            row = (await session.query(BIRTH, timeout_ms=timeout_ms))[0]
            self._birth = Birth(
                system_id=row[0] or "",
                started_unix_ms=int(row[1] or 0),
                version=session.parameter("server_version").split(" ")[0],
            )
        return self._birth


def left(started: float, timeout_ms: int) -> int:
    """Milliseconds left of a bound that began at `started`; at least 1."""
    return max(1, timeout_ms - int((time.monotonic() - started) * 1000))


async def identify(session: Session, *, timeout_ms: int) -> Position:
    """IDENTIFY_SYSTEM: timeline and end of the WAL the server holds."""
    row = (await session.query("IDENTIFY_SYSTEM", timeout_ms=timeout_ms))[0]
    return Position(timeline=int(row[1] or 0), lsn=lsn(row[2]) or Lsn(0))


def read_facts(
    row: Row, birth: Birth, position: Position, upstream: Upstream | None, *, asked_ns: int = 0
) -> ServerFacts:
    """The facts in one row of `FACTS`. `asked_ns`: CLOCK_BOOTTIME, not after it was asked for."""
    replica = row[0] == "t"
    streaming = row[5] is not None
    follows = (
        upstream is not None
        and streaming
        and (row[5], row[6]) == (upstream.host, str(upstream.port))
    )
    return ServerFacts(
        accepting=True,
        role=ServerRole.REPLICA if replica else ServerRole.PRIMARY,
        position=position,
        replayed_lsn=lsn(row[1]) if replica else None,
        upstream=upstream.node_id if follows and upstream is not None else None,
        fed_ns=asked_ns - int(row[8]) if follows and row[8] else None,
        streaming_replicas=tuple(sorted(int(word) for word in (row[7] or "").split())),
        lag_seconds=lag(caught_up=row[3] == "t", age=row[4]) if replica and streaming else None,
        system_id=birth.system_id,
        version=birth.version,
        started_unix_ms=birth.started_unix_ms,
    )


def lag(*, caught_up: bool, age: str | None) -> float | None:
    """Seconds a streaming replica is behind: none if everything received is replayed, however long
    ago the last transaction was."""
    if caught_up:
        return 0.0
    return max(0.0, float(age)) if age is not None else None


def refusal(error: SessionError) -> ServerFacts:
    """Facts of a server that gave no answer: it hangs, is starting or stopping, or is full."""
    if error.timed_out:
        return ServerFacts(accepting=False, refused="timeout")
    full = any(words in error.message for words in TOO_MANY)
    return ServerFacts(
        accepting=full, refused=error.message.removeprefix("the database system is ")
    )


def lsn(value: str | None) -> Lsn | None:
    """An LSN, or None for NULL."""
    return None if value is None else parse_lsn(value)
