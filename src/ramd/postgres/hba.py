"""pg_hba.conf: RAMD's own lines first, then the operator's file word for word."""

from __future__ import annotations

from collections.abc import Iterable

from ramd.postgres.options import ServerOptions
from ramd.postgres.quote import hba_name

LOOPBACK = ("127.0.0.0/8", "::1/128")


def render_hba(options: ServerOptions, operators: str) -> str:
    """Text of the file.

    The daemon's superuser needs no password on the socket: its directory is 0700. The replication
    role comes from loopback without one only where the whole cluster does (`trust`).
    """
    return "\n".join([*own_lines(options), "", operators.rstrip("\n")]).rstrip("\n") + "\n"


def own_lines(options: ServerOptions) -> Iterable[str]:
    """What RAMD needs to get in itself: SQL and WAL for pg_basebackup and pg_rewind."""
    superuser = hba_name(options.superuser)
    role = hba_name(options.replication_user)
    database = hba_name(options.database)
    yield "# Written by ramd; your own lines belong into pg_hba.conf in the data directory."
    yield f"local all,replication {superuser} trust"
    if options.replication_password is not None:
        yield f"host replication,{database} {role} all scram-sha-256"
    else:
        for network in LOOPBACK:
            yield f"host replication,{database} {role} {network} trust"
