"""pg_rewind: take a stopped server back to where it left the present primary's history.

Nothing that only this server has is lost by it (rule S7): WAL past the fork is copied to
`<state_dir>/divergent/<UTC stamp>/` first. Copied, not linked: pg_rewind writes into the files.
"""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime
from pathlib import Path

from ramd.domain.errors import PostgresError
from ramd.domain.lsn import Lsn
from ramd.domain.observation import Position
from ramd.domain.server import Upstream
from ramd.postgres.conf import peer_conninfo, write_all
from ramd.postgres.control import read_control
from ramd.postgres.files import make_dirs, remove_file
from ramd.postgres.make import clean_copied
from ramd.postgres.probe import identify
from ramd.postgres.process import set_signal_file
from ramd.postgres.session import Session, SessionError, open_peer
from ramd.postgres.site import Site
from ramd.postgres.timeline import Fork, drop_placeholders, fork_from, parse_history
from ramd.postgres.tools import must_run
from ramd.postgres.unfinished import begin, finish
from ramd.postgres.wal import end_of_wal, segment_name, segment_start

SCAN_TIMEOUT_MS = 60_000
REWIND_TIMEOUT_MS = 3600 * 1000
REWIND_STALL_MS = 600_000
PEER_TIMEOUT_MS = 5000
CHECKPOINT_TIMEOUT_MS = 300_000
CHECKPOINT_NEEDED_BELOW = 16
"""Up to 15, pg_rewind takes the source's timeline from its last checkpoint: one on the new timeline
must be there, or it finds nothing to rewind."""


async def rewind(site: Site, upstream: Upstream) -> None:
    """Raises PostgresError. If it does after pg_rewind began, the directory is PARTIAL: clone."""
    write_all(site, None)
    info = peer_conninfo(site, upstream, database=site.options.database)
    end = await end_of_wal(site, await read_control(site), timeout_ms=SCAN_TIMEOUT_MS)
    fork = await find_fork(site, upstream, end)
    if fork is not None and end is not None:
        await save_divergent(site, fork, end)
    argv = [
        site.binaries.tool("pg_rewind"),
        f"--target-pgdata={site.data_dir}",
        f"--source-server={info}",
        *([] if site.options.sync else ["--no-sync"]),
    ]
    begin(site, site.data_dir, "rewind")
    # Crash recovery in single-user mode, with which pg_rewind begins, refuses to be a standby.
    remove_file(site.data_dir / "standby.signal")
    drop_placeholders(site.wal_dir)
    await must_run(argv, site.account, timeout_ms=REWIND_TIMEOUT_MS, stall_ms=REWIND_STALL_MS)
    clean_copied(site, site.data_dir)
    set_signal_file(site, replica=True)  # started by hand it must not become a primary
    finish(site)


async def find_fork(site: Site, upstream: Upstream, end: Position | None) -> Lsn | None:
    """Where the upstream's history left this server's timeline; None if it never was on it or still
    is. Proves that the upstream answers before anything is changed. Raises PostgresError."""
    info = peer_conninfo(site, upstream, database=site.options.database)
    session = None
    try:
        session = await open_peer(
            f"{info} replication=database", upstream.host, timeout_ms=PEER_TIMEOUT_MS
        )
        source = await identify(session, timeout_ms=PEER_TIMEOUT_MS)
        if site.binaries.major < CHECKPOINT_NEEDED_BELOW:
            await session.query("CHECKPOINT", timeout_ms=CHECKPOINT_TIMEOUT_MS)
        if end is None or source.timeline == end.timeline or source.timeline == 1:
            return None
        return fork_from(await history_of(session, source.timeline), end.timeline)
    except SessionError as error:
        raise PostgresError(
            f"node {upstream.node_id} at {upstream.host}:{upstream.port}: {error.message}"
        ) from error
    finally:
        if session is not None:
            session.close()


async def history_of(session: Session, timeline: int) -> tuple[Fork, ...]:
    """Ancestors of `timeline`, as the server at the other end knows them."""
    rows = await session.query(f"TIMELINE_HISTORY {timeline}", timeout_ms=PEER_TIMEOUT_MS)
    return parse_history(rows[0][1] or "")


async def save_divergent(site: Site, fork: Lsn, end: Position) -> Path | None:
    """Copy this server's WAL files past the fork aside; None if it has nothing there."""
    if end.lsn <= fork:
        return None
    segment_bytes = (await read_control(site)).segment_bytes
    first = segment_name(end.timeline, fork, segment_bytes)
    names = sorted(
        path.name
        for path in site.wal_dir.iterdir()
        if (at := segment_start(path.name, segment_bytes)) is not None
        and at[0] == end.timeline
        and path.name >= first
        and at[1] < end.lsn
    )
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    target = site.divergent_dir / stamp
    make_dirs(target, 0o700)
    needed = sum((site.wal_dir / name).stat().st_size for name in names)
    free = shutil.disk_usage(target).free
    if needed > free // 2:
        target.rmdir()
        raise PostgresError(
            f"{needed} bytes of divergent WAL do not fit beside {free} free in {target.parent}"
        )
    for name in [*names, f"{end.timeline:08X}.history"]:
        source = site.wal_dir / name
        if source.exists():
            await asyncio.to_thread(shutil.copyfile, source, target / name)
    return target
