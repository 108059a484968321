"""One look at a primary's streams: who has confirmed what, and whom the server counts.

A stream counts as a member's only if it goes through that node's own slot: a slot has one
walsender, so nobody is counted twice (attacks C7). Start reading at `sync_facts`.
"""

from __future__ import annotations

from ramd.domain.lsn import Lsn
from ramd.domain.sync import Stream, SyncFacts
from ramd.postgres.probe import Link, lsn
from ramd.postgres.session import Row
from ramd.postgres.standbys import STREAMS, read_stream_name, slot_name

# Settings as this very session's: it reads the file again before it runs a statement.
LOOK = f"""
SELECT pg_current_wal_flush_lsn(), current_setting('synchronous_standby_names'),
       r.application_name, r.flush_lsn, r.sync_priority > 0, s.slot_name,
       r.application_name ~ '{STREAMS}', r.state = 'streaming'
  FROM (SELECT 1) AS one
  LEFT JOIN (pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid)
    ON r.state IN ('streaming', 'catchup') OR r.sync_priority > 0
"""


async def sync_facts(link: Link, *, timeout_ms: int) -> SyncFacts:
    """Raises SessionError: the server does not answer, or is no primary."""
    return read_rows(await link.query(LOOK, timeout_ms=timeout_ms))


def read_rows(rows: list[Row]) -> SyncFacts:
    """The facts in the rows of `LOOK`."""
    streams: list[Stream] = []
    behind: list[Stream] = []
    strangers = 0
    for row in rows:
        stream = _stream(row)
        if stream is None:
            strangers += row[4] == "t"
        else:
            (streams if row[7] == "t" else behind).append(stream)
    return SyncFacts(
        flushed=lsn(rows[0][0]) or Lsn(0),
        names=rows[0][1] or "",
        streams=tuple(streams),
        behind=tuple(behind),
        strangers=strangers,
    )


def _stream(row: Row) -> Stream | None:
    """The stream of one row, if it is a copy of ours through its own node's slot."""
    if row[6] != "t":
        return None
    member = read_stream_name(row[2] or "")
    if row[5] != slot_name(member.node_id):
        return None
    return Stream(
        node_id=member.node_id,
        copy=member.copy,
        flushed=lsn(row[3]) or Lsn(0),
        counts=row[4] == "t",
    )
