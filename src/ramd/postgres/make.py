"""Make a data directory: initdb, and pg_basebackup from a running server.

Both work beside the final place and are renamed into it when they are complete, so a data directory
is never half of one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from ramd.domain.errors import PostgresError
from ramd.domain.server import Upstream
from ramd.postgres.conf import peer_conninfo, without_owned, write_passfile
from ramd.postgres.files import make_dirs, read_file, sync_dir, touch_file, write_file
from ramd.postgres.orphans import end_tools
from ramd.postgres.quote import literal
from ramd.postgres.session import SessionError, open_peer
from ramd.postgres.site import Site
from ramd.postgres.standbys import slot_name
from ramd.postgres.tools import must_run
from ramd.postgres.unfinished import begin, discard, finish, workplace

INITDB_TIMEOUT_MS = 120_000
LOCALE_OPTIONS = ("--locale", "--lc-", "--no-locale", "--encoding", "-E", "--icu", "--builtin")
SEGMENT_OPTION = "--wal-segsize"
SEGMENT_DEFAULT = "--wal-segsize=4"
"""Megabytes."""
CLONE_TIMEOUT_MS = 24 * 3600 * 1000
CLONE_STALL_MS = 600_000
"""The checkpoint that a clone begins with may take minutes without a byte."""
PEER_TIMEOUT_MS = 5000
KILL_MS = 5000


async def make(site: Site, what: str, fill: Callable[[Path], Awaitable[None]]) -> None:
    """Let `fill` make a data directory, then put it in its place; on failure nothing is left."""
    # What a killed daemon began goes on by itself, and would write into what is made now.
    await end_tools(site, timeout_ms=KILL_MS)
    await discard(site)
    place = workplace(site, f"{what}-tmp")
    begin(site, place, what)
    done = False
    try:
        make_dirs(place, 0o700)
        site.account.give(place)
        place.chmod(0o700)
        await fill(place)
        if place != site.data_dir:
            place.rename(site.data_dir)
            sync_dir(site.data_dir.parent)
        done = True
    finally:
        if done:
            finish(site)
        else:
            await discard(site)


async def initdb(site: Site) -> None:
    """A fresh cluster with data checksums. Raises PostgresError with initdb's words."""

    async def fill(place: Path) -> None:
        options = site.options
        argv = [
            site.binaries.tool("initdb"),
            f"--pgdata={place}",
            f"--username={options.superuser}",
            "--auth-local=trust",
            f"--auth-host={options.auth_method}",
            "--data-checksums",
            *default_locale(options.initdb_options),
            *default_segment(options.initdb_options),
            *options.initdb_options,
        ]
        await must_run(argv, site.account, timeout_ms=INITDB_TIMEOUT_MS)
        if options.auth_method != "trust":
            admit_with_password(place / "pg_hba.conf")

    await make(site, "initdb", fill)


def admit_with_password(hba: Path) -> None:
    """Clients of other hosts get in with a password. The line is the operator's from now on: it
    stands in the data directory's own file, and travels with it to every replica."""
    with hba.open("a") as file:
        file.write("\n# clients of other hosts: a password, over SCRAM\n")
        file.write("host all all all scram-sha-256\n")


def default_locale(chosen: tuple[str, ...]) -> list[str]:
    """UTF-8 and the same order on every host, unless the operator says otherwise: the daemon's own
    environment (none, under a service manager) would make the cluster's encoding SQL_ASCII."""
    if any(option.startswith(LOCALE_OPTIONS) for option in chosen):
        return []
    return ["--encoding=UTF8", "--locale=C.UTF-8"]


def default_segment(chosen: tuple[str, ...]) -> list[str]:
    """Small segments of WAL: a promotion copies one before the first write. See docs/adr/0018."""
    return [] if any(option.startswith(SEGMENT_OPTION) for option in chosen) else [SEGMENT_DEFAULT]


async def clone(site: Site, upstream: Upstream) -> None:
    """A base backup with the WAL it needs, through this node's slot where the upstream has it."""
    site.prepare()
    write_passfile(site)
    info = peer_conninfo(site, upstream)
    slot = await free_slot(site, upstream)

    async def fill(place: Path) -> None:
        argv = [
            site.binaries.tool("pg_basebackup"),
            f"--pgdata={place}",
            f"--dbname={info}",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-password",
            *([f"--slot={slot}"] if slot else []),
            *([] if site.options.sync else ["--no-sync"]),
        ]
        await must_run(argv, site.account, timeout_ms=CLONE_TIMEOUT_MS, stall_ms=CLONE_STALL_MS)
        clean_copied(site, place)
        touch_file(place / "standby.signal", site.account)  # by hand, too, it starts as a replica

    await make(site, "clone", fill)


async def free_slot(site: Site, upstream: Upstream) -> str | None:
    """This node's slot on the upstream, if it is there and nobody streams through it."""
    name = slot_name(site.options.node_id)
    info = peer_conninfo(site, upstream, database=site.options.database)
    session = None
    try:
        session = await open_peer(info, upstream.host, timeout_ms=PEER_TIMEOUT_MS)
        rows = await session.query(
            f"SELECT 1 FROM pg_replication_slots WHERE slot_name = {literal(name)} AND NOT active",
            timeout_ms=PEER_TIMEOUT_MS,
        )
    except SessionError as error:
        raise PostgresError(
            f"node {upstream.node_id} at {upstream.host}:{upstream.port}: {error.message}"
        ) from error
    finally:
        if session is not None:
            session.close()
    return name if rows else None


def clean_copied(site: Site, place: Path) -> None:
    """What the other node's ALTER SYSTEM said of settings that RAMD owns is not for this one."""
    auto_file = place / "postgresql.auto.conf"
    write_file(auto_file, without_owned(read_file(auto_file, site.account) or ""), site.account)
