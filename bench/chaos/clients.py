"""Clients that record every answer: on each host some that write whenever it lets them.

Each kind of work is done by one client per host that hangs up after a while without an answer and,
for single rows, also by one that never does, so that it hears what a thawed host still says.
Nothing of the cluster manager is used. Start reading at `Clients`.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from dataclasses import dataclass, field

import psycopg

from bench.chaos.history import PARTS, Ack, History, Work
from tools.writers import connect, hang_up, run

ROWS = "chaos_rows"
COUNTERS = "chaos_counters"
COUNTERS_MAX = 3
RETRY_S = 0.02
"""An outage is measured by who tries again this often."""
UNREACHED_RETRY_S = 0.1
PATIENT_RETRY_S = 0.1
PATIENCE_S = 3.0
CLIENTS_PER_NODE = 100
TIMELINE = "('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"
TABLES = (
    f"CREATE TABLE {ROWS}(client int, number bigint, part int, at timestamptz DEFAULT now())",
    f"CREATE INDEX ON {ROWS}(at)",
    f"CREATE TABLE {COUNTERS}(counter int PRIMARY KEY, value bigint NOT NULL)",
    f"INSERT INTO {COUNTERS} SELECT n, 0 FROM generate_series(1, {COUNTERS_MAX}) n",
)
"""What `Clients` need on the primary. No key on the rows: a second one must not be refused."""

Connection = psycopg.AsyncConnection[tuple[object, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """How one client of each host works."""

    work: Work
    interval_s: float
    patience_s: float | None = PATIENCE_S
    """None: waits for an answer however long it takes."""
    retry_s: float = RETRY_S


HABITS = (
    Habit(work=Work.INSERT, interval_s=0.02),
    Habit(work=Work.INSERT, interval_s=0.05, patience_s=None, retry_s=PATIENT_RETRY_S),
    Habit(work=Work.TRANSACTION, interval_s=0.05, retry_s=PATIENT_RETRY_S),
    Habit(work=Work.COUNT, interval_s=0.03, retry_s=PATIENT_RETRY_S),
)


@dataclass(slots=True)
class Attempt:
    """What a client is about: which number, and since when its outcome has been open."""

    number: int
    sent_s: float = 0.0
    """0: nothing that could commit was sent yet."""


@dataclass(slots=True)
class Client:
    """One of them; `number` goes up with every attempt, so every row is tried once."""

    ident: int
    node: int
    dsn: str
    habit: Habit
    history: History
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def work(self) -> None:
        """Until it is cancelled."""
        connection: Connection | None = None
        try:
            while True:
                pause_s = self.habit.retry_s
                try:
                    if connection is None:
                        connection = await connect(self.dsn)
                except (psycopg.Error, OSError, TimeoutError):
                    self.history.unreached += 1
                    await asyncio.sleep(UNREACHED_RETRY_S)
                    continue
                if await self._once(connection):
                    pause_s = self.habit.interval_s
                elif connection.broken or connection.closed:
                    hang_up(connection)
                    connection = None
                await asyncio.sleep(pause_s)
        finally:
            hang_up(connection)

    async def _once(self, connection: Connection) -> bool:
        """One attempt; true if it was acknowledged. Every outcome is in the history afterwards."""
        attempt = Attempt(number=next(self.numbers))
        try:
            ack = await self._try(connection, attempt)
        except psycopg.Error as error:
            if undone(error):
                self.history.refused += 1
                # A transaction that failed in the middle is still open.
                await self._leave(connection)
            else:
                self._open(attempt)
                hang_up(connection)
            return False
        except (OSError, asyncio.CancelledError) as error:
            self._open(attempt)
            hang_up(connection)
            if isinstance(error, asyncio.CancelledError):
                raise
            return False
        self.history.acks.append(ack)
        return True

    def _open(self, attempt: Attempt) -> None:
        if attempt.sent_s and self.habit.work is not Work.COUNT:
            self.history.unknown[self.ident, attempt.number] = self.habit.work

    async def _leave(self, connection: Connection) -> None:
        if self.habit.work is Work.TRANSACTION:
            try:
                await run(connection, "ROLLBACK", self.habit.patience_s)
            except (psycopg.Error, OSError):
                hang_up(connection)

    async def _try(self, connection: Connection, attempt: Attempt) -> Ack:
        if self.habit.work is Work.COUNT:
            counter = 1 + attempt.number % COUNTERS_MAX
            found = await self._commit(
                connection,
                attempt,
                f"UPDATE {COUNTERS} SET value = value + 1 WHERE counter = {counter}"
                f" RETURNING {TIMELINE}, value",
            )
            return self._ack(attempt, found[0], counter, found[1])
        if self.habit.work is Work.INSERT:
            return self._ack(
                attempt, (await self._commit(connection, attempt, self._row(0, attempt.number)))[0]
            )
        await run(connection, "BEGIN", self.habit.patience_s)
        timeline = 0
        for part in range(PARTS[Work.TRANSACTION]):
            cursor = await run(connection, self._row(part, attempt.number), self.habit.patience_s)
            row = await cursor.fetchone()
            assert row is not None
            timeline = int(str(row[0]))
        attempt.sent_s = time.monotonic()
        cursor = await run(connection, "COMMIT", self.habit.patience_s)
        assert cursor.statusmessage == "COMMIT", cursor.statusmessage
        return self._ack(attempt, timeline)

    def _row(self, part: int, number: int) -> str:
        return (
            f"INSERT INTO {ROWS}(client, number, part) VALUES ({self.ident}, {number}, {part})"
            f" RETURNING {TIMELINE}"
        )

    async def _commit(
        self, connection: Connection, attempt: Attempt, statement: str
    ) -> tuple[int, ...]:
        attempt.sent_s = time.monotonic()
        cursor = await run(connection, statement, self.habit.patience_s)
        row = await cursor.fetchone()
        assert row is not None
        return tuple(int(str(value)) for value in row)

    def _ack(self, attempt: Attempt, timeline: int, counter: int = 0, value: int = 0) -> Ack:
        return Ack(
            client=self.ident,
            number=attempt.number,
            work=self.habit.work,
            node=self.node,
            timeline=timeline,
            sent_s=attempt.sent_s,
            received_s=time.monotonic(),
            counter=counter,
            value=value,
        )


def undone(error: psycopg.Error) -> bool:
    """PostgreSQL says ERROR: the transaction is aborted. FATAL may come after the commit."""
    return error.diag.severity_nonlocalized == "ERROR"


def make_tables(dsn: str) -> None:
    """On the primary. Raises psycopg.Error."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in TABLES:
            connection.execute(statement.encode())


class Clients:
    """All clients of all hosts, in a thread. Context manager; the tables must be there."""

    def __init__(self, dsns: dict[int, str], habits: tuple[Habit, ...] = HABITS) -> None:
        self.history = History()
        self._clients = [
            Client(
                ident=node * CLIENTS_PER_NODE + place,
                node=node,
                dsn=dsn,
                habit=habit,
                history=self.history,
            )
            for node, dsn in dsns.items()
            for place, habit in enumerate(habits, start=1)
        ]
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="clients", daemon=True)

    def __enter__(self) -> Clients:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Who waits for an answer now is left without one. Raises RuntimeError."""
        self._stop.set()
        self._thread.join(timeout=30)
        if self._thread.is_alive():
            raise RuntimeError("the clients do not end")

    def check(self) -> None:
        """Raises RuntimeError if the clients themselves failed: nothing more is recorded."""
        if self._failure is not None:
            raise RuntimeError(f"the clients failed: {self._failure!r}") from self._failure

    def last(self) -> Ack | None:
        """The newest acknowledgement."""
        return self.history.acks[-1] if self.history.acks else None

    def flows_since(self, since_s: float) -> bool:
        """Something was sent and acknowledged after that."""
        last = self.last()
        return last is not None and last.sent_s > since_s

    def _main(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        tasks = [asyncio.create_task(client.work()) for client in self._clients]
        stopped = asyncio.create_task(asyncio.to_thread(self._stop.wait))
        # A client never ends by itself: if one does, all end, and `check` says so.
        await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                self._failure = outcome
        self._stop.set()
        await stopped
