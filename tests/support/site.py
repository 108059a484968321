"""A server's site in a test's directory, for what is done to its files; nothing is started."""

from __future__ import annotations

import os
from pathlib import Path

from ramd.domain.fence import Preload
from ramd.postgres.account import Account
from ramd.postgres.binaries import Binaries
from ramd.postgres.options import ServerOptions
from ramd.postgres.site import Site


def site_at(
    folder: Path, *, major: int = 18, preload: Preload | None = None, **options: object
) -> Site:
    """Node 1 of this test's user, with data, state and logs below `folder`."""
    return Site(
        options=ServerOptions(
            node_id=1,
            data_dir=folder / "data",
            state_dir=folder / "state",
            log_dir=folder / "log",
            port=5432,
            **options,  # type: ignore[arg-type]
        ),
        binaries=Binaries(bin_dir=Path("/nowhere"), major=major, version=f"{major}.6"),
        account=Account(name="me", uid=os.geteuid(), gid=os.getegid()),
        preload=preload,
    )
