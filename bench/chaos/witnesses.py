"""One reader per host: which rows were ever visible on a replica. For asynchronous replication.

There an acknowledged row may be lost, but not one that a replica was seen to have: whoever is
promoted has the most. Start reading at `Witnesses`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import psycopg

from bench.chaos.clients import CLIENTS_PER_NODE, ROWS
from bench.chaos.history import Final
from tools.writers import connect, hang_up, run


class Witnesses:
    """Context manager. A former primary that starts again as a replica shows the end of its own
    WAL until it is rewound: rows that came in by its own clients prove nothing, so they do not
    count on it."""

    POLL_S = 0.05
    LOOK_BACK_S = 5
    """Rows come in almost in order of time: far enough to catch the rest."""

    def __init__(self, dsns: dict[int, str]) -> None:
        self._dsns = dsns
        self.seen: dict[int, set[tuple[int, int, int]]] = {node: set() for node in dsns}
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

    def missing(self, final: Final) -> Iterator[str]:
        """Seen on a replica, and not on the primary at the end."""
        for node, seen in self.seen.items():
            for client, number, part in sorted(seen - final.rows.keys()):
                yield f"row {client}/{number} part {part}, seen on node {node}"

    async def _run(self) -> None:
        tasks = [asyncio.create_task(self._read(node, dsn)) for node, dsn in self._dsns.items()]
        await asyncio.to_thread(self._stop.wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, node: int, dsn: str) -> None:
        connection: psycopg.AsyncConnection[tuple[object, ...]] | None = None
        own = node * CLIENTS_PER_NODE
        query = (
            f"SELECT client, number, part FROM {ROWS} WHERE pg_is_in_recovery()"
            f" AND client NOT BETWEEN {own} AND {own + CLIENTS_PER_NODE - 1}"
            f" AND at > clock_timestamp() - interval '{self.LOOK_BACK_S} s'"
        )
        try:
            while True:
                try:
                    if connection is None:
                        connection = await connect(dsn)
                    for row in await (await run(connection, query)).fetchall():
                        client, number, part = (int(str(value)) for value in row)
                        self.seen[node].add((client, number, part))
                except (psycopg.Error, OSError, TimeoutError):
                    hang_up(connection)
                    connection = None
                await asyncio.sleep(self.POLL_S)
        finally:
            hang_up(connection)
