"""Which operating-system user the server runs as, and whether that user can reach its files.

PostgreSQL refuses to run as root, so a daemon of root drops to another user for everything of the
server's. Start reading at `choose_account`.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ramd.domain.errors import ConfigError

FALLBACK_USERS = ("postgres", "nobody")
CHECK_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The server's user. `drops` is whether we are root and have to become it."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    drops: bool = False
    warning: str = ""
    """Something the operator should hear about this choice; may be empty."""

    def give(self, path: Path | int) -> None:
        """Make the file or directory (or open descriptor) the server's, if it is not already."""
        if not self.drops:
            return
        if isinstance(path, int):
            os.fchown(path, self.uid, self.gid)
        else:  # never through a link: directories of the server's are not to be trusted
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def choose_account(data_dir: Path, daemon_user: str | None = None) -> Account:
    """An ordinary user: itself. root: the owner of an existing data directory, else `daemon_user`,
    else `postgres`, else `nobody` with a warning. Raises ConfigError."""
    if os.geteuid() != 0:
        return ordinary(data_dir)
    owner = owner_of(data_dir)
    if owner == 0:
        raise ConfigError(
            f"{data_dir} belongs to root, and PostgreSQL never runs as root",
            field="postgresql_data_dir",
            hint="chown -R it to the server's user",
        )
    if owner is not None:
        return by_entry(user_of(owner, data_dir))
    if daemon_user is not None:
        return named(daemon_user)
    for name in FALLBACK_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        warning = (
            ""
            if name == FALLBACK_USERS[0]
            else f"PostgreSQL runs as user {name}: set daemon_user to a user of its own"
        )
        return by_entry(entry, warning)
    raise ConfigError(
        "root needs a user for PostgreSQL and there is none named postgres",
        field="daemon_user",
        hint="create one and set daemon_user",
    )


def ordinary(data_dir: Path) -> Account:
    """Ourselves. Raises ConfigError if an existing data directory is another user's."""
    me = os.geteuid()
    owner = owner_of(data_dir)
    if owner is not None and owner != me:
        raise ConfigError(
            f"{data_dir} belongs to another user (uid {owner})",
            field="postgresql_data_dir",
            hint="run ramd as its owner or as root",
        )
    try:
        name = pwd.getpwuid(me).pw_name
    except KeyError:
        name = str(me)
    return Account(name=name, uid=me, gid=os.getegid())


def owner_of(data_dir: Path) -> int | None:
    """Owner of a data directory with something in it; None if absent or empty."""
    try:
        if not any(data_dir.iterdir()):
            return None
        return data_dir.stat().st_uid
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise ConfigError(
            f"{data_dir} cannot be read: {error.strerror}", field="postgresql_data_dir"
        ) from error


def user_of(uid: int, data_dir: Path) -> pwd.struct_passwd:
    """The user entry of a data directory's owner."""
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise ConfigError(
            f"{data_dir} belongs to uid {uid}, which is no user of this host",
            field="postgresql_data_dir",
        ) from None


def owner_account(data_dir: Path) -> Account:
    """Whoever a directory belongs to, judged no further: enough to look for its processes."""
    try:
        found = data_dir.stat()
    except FileNotFoundError:
        return Account(name="", uid=os.geteuid(), gid=os.getegid())
    drops = os.geteuid() == 0 and found.st_uid != 0
    return Account(name="", uid=found.st_uid, gid=found.st_gid, drops=drops)


def named(name: str) -> Account:
    """The user `name`, which must exist and not be root."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"there is no user {name} on this host", field="daemon_user") from None
    if entry.pw_uid == 0:
        raise ConfigError(
            f"daemon_user {name} is root, and PostgreSQL never runs as root", field="daemon_user"
        )
    return by_entry(entry)


def by_entry(entry: pwd.struct_passwd, warning: str = "") -> Account:
    """An account that root drops to, with the user's own groups."""
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(
        name=entry.pw_name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        groups=groups,
        drops=True,
        warning=warning,
    )


def check_reachable(account: Account, paths: Iterable[Path]) -> None:
    """Every existing directory above the paths lets the server's user through. ConfigError if not.

    Asked of the kernel, as that user, so access lists count too. Changes nothing.
    """
    if not account.drops:
        return
    folders = sorted({str(parent) for path in paths for parent in existing_parents(path)})
    script = 'for d do test -x "$d" || printf "%s\\n" "$d"; done'
    answer = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *folders],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        user=account.uid,
        group=account.gid,
        extra_groups=account.groups,
        timeout=CHECK_TIMEOUT_S,
    )
    closed = answer.stdout.splitlines()
    if closed:
        raise ConfigError(
            f"user {account.name}, which PostgreSQL runs as, cannot enter {closed[0]}",
            hint=f"chmod o+x {closed[0]}, or choose directories outside it",
        )


def existing_parents(path: Path) -> list[Path]:
    """The directories above `path` that exist, outermost first."""
    return [parent for parent in reversed(path.parents) if parent.exists()]
