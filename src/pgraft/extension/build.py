"""Builds of the library: one directory for each state of the sources and version of the server.

Lives here: compiling, and finding what was compiled. Must not live here: when a server loads it.
Start reading at `build`; `python -m pgraft.extension.build --pg-config PATH` is its command line.

No PGXS: its flags are those of whoever built the server, with whatever compiler. One call of the
compiler with the server's own headers is all that an extension of one file needs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CACHE_DIR = Path("/var/cache/ramd")
COMPILERS = ("cc", "gcc", "clang")
FLAGS = (
    "-O2",
    "-fPIC",
    "-shared",
    "-D_GNU_SOURCE",
    "-fno-strict-aliasing",
    "-fwrapv",
    "-Wall",
)
"""As PostgreSQL itself is compiled where it matters. Symbols stay visible: before 16 the server
finds the magic block no other way."""
SHARED_FILES = ("pgraft.control", "pgraft--*.sql")
LIBRARY = "pgraft.so"
COMPILE_TIMEOUT_S = 120.0
ASK_TIMEOUT_S = 20.0
SAID_LINES_MAX = 8


class BuildError(Exception):
    """The library cannot be built here: what is wrong, and what would be right."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One build. `share` holds `extension/` with what CREATE EXTENSION needs."""

    dir: Path
    library: Path
    share: Path
    major: int


def sources() -> Path:
    """Where the sources are: beside this module, installed or not."""
    return Path(__file__).parent


def fingerprint(source_dir: Path | None = None) -> str:
    """Twelve hexadecimal digits over everything that a build is made of."""
    folder = source_dir or sources()
    digest = hashlib.sha256()
    for pattern in ("*.c", "*.h", *SHARED_FILES):
        for path in sorted(folder.glob(pattern)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def build_root() -> Path:
    """Where builds are kept: /var/cache/ramd for root if only root can write there, else the
    user's cache directory. What lies in it is run by a server, so it is nobody else's."""
    if os.geteuid() == 0:
        for candidate in (CACHE_DIR, Path(tempfile.gettempdir(), "ramd-cache-0")):
            if _ours_alone(candidate):
                return candidate
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    for candidate in (
        Path(home, "ramd"),
        Path(tempfile.gettempdir(), f"ramd-cache-{os.geteuid()}"),
    ):
        if _ours_alone(candidate):
            return candidate
    raise BuildError(
        "there is no directory of ours to keep the library in",
        "set XDG_CACHE_HOME to a directory that only this user can write",
    )


def build_dir(root: Path, server_version: str, source_dir: Path | None = None) -> Path:
    """Where the build for a server lies. Minor versions have their own: one of them changed a
    structure that the library reads."""
    return root / f"pgraft-{fingerprint(source_dir)}-pg{server_version}"


def find(roots: Sequence[Path], server_version: str) -> Build | None:
    """The build of the present sources for a server, if there is one."""
    for root in roots:
        found = _described(build_dir(root, server_version), server_version)
        if found.library.is_file():
            return found
    return None


def headers_of(pg_config: Path, major: int) -> Path:
    """Directory of the server's headers: as pg_config says, else where Debian keeps them.

    Raises BuildError naming the package that is missing.
    """
    told = ask([str(pg_config), "--includedir-server"]) if pg_config.exists() else ""
    usual = f"/usr/include/postgresql/{major}/server"
    for candidate in (told, usual):
        if candidate and Path(candidate, "postgres.h").is_file():
            return Path(candidate)
    raise BuildError(
        f"the headers of PostgreSQL {major} are not installed",
        f"install postgresql-server-dev-{major} (Debian) or postgresql{major}-devel (Red Hat)",
    )


def build(
    pg_config: Path,
    root: Path,
    *,
    headers: Path | None = None,
    server_version: str | None = None,
    source_dir: Path | None = None,
) -> Build:
    """Compile for the server of `pg_config`, or return what was compiled before.

    It appears whole or not at all; of two that build at once one wins, and both use its result.
    Raises BuildError. Blocks, about a second.
    """
    version = server_version or version_of(pg_config)
    major = int(version.split(".")[0])
    target = build_dir(root, version, source_dir)
    done = _described(target, version)
    if done.library.is_file():
        return done
    compiler = find_compiler()
    include = headers or headers_of(pg_config, major)
    root.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=root))
    try:
        _fill(unfinished, source_dir or sources(), compiler, include)
        try:
            unfinished.rename(target)
        except OSError:
            if not done.library.is_file():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return done


def version_of(pg_config: Path) -> str:
    """`18.6` of `PostgreSQL 18.6 (…)`. Raises BuildError."""
    said = ask([str(pg_config), "--version"])
    match = re.search(r"PostgreSQL (\d+(?:\.\d+)?)", said)
    if match is None:
        raise BuildError(
            f"{pg_config} does not tell a version: {said or 'it does not run'}",
            "name the pg_config of the server, such as /usr/lib/postgresql/18/bin/pg_config",
        )
    return match[1]


def find_compiler() -> str:
    """The C compiler: $CC, or the first of `COMPILERS`. Raises BuildError."""
    wanted = os.environ.get("CC")
    for name in (wanted,) if wanted else COMPILERS:
        path = shutil.which(name)
        if path is not None:
            return path
    raise BuildError(
        f"there is no C compiler ({wanted or ', '.join(COMPILERS)})", "install the package gcc"
    )


def _fill(folder: Path, source_dir: Path, compiler: str, include: Path) -> None:
    share = folder / "share" / "extension"
    library = folder / "lib"
    for new in (share, library):
        new.mkdir(parents=True)
    source = source_dir / "pgraft.c"
    command = [compiler, *FLAGS, f"-I{include}", "-Wl,--as-needed", "-o", str(library / LIBRARY)]
    try:
        done = subprocess.run(
            [*command, str(source)],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=COMPILE_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{compiler} does not run: {error}", "install the package gcc") from error
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[:SAID_LINES_MAX])
        raise BuildError(
            f"pgraft does not compile against {include}: {said}",
            "check that these are the headers of PostgreSQL 15 to 18, complete with what they need",
        )
    for pattern in SHARED_FILES:
        for path in source_dir.glob(pattern):
            shutil.copyfile(path, share / path.name)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.name == LIBRARY else 0o644)


def _described(target: Path, version: str) -> Build:
    return Build(
        dir=target,
        library=target / "lib" / LIBRARY,
        share=target / "share",
        major=int(version.split(".", maxsplit=1)[0]),
    )


def _ours_alone(folder: Path) -> bool:
    """It is there, or was made, as a real directory that we own and only we may write."""
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o022
    return private and found.st_uid == os.geteuid() and os.access(folder, os.W_OK)


def ask(command: list[str]) -> str:
    """What a program prints, '' if it does not run, fails or says nothing. Bounded in time."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd="/", timeout=ASK_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the library for one server.")
    parser.add_argument("--pg-config", type=Path, required=True)
    parser.add_argument("--headers", type=Path, help="if pg_config does not tell where they are")
    parser.add_argument("--root", type=Path, help="where builds are kept")
    arguments = parser.parse_args()
    try:
        root = arguments.root or build_root()
        pg_config = arguments.pg_config.absolute()
        done = build(pg_config, root, headers=arguments.headers)
    except BuildError as error:
        sys.stderr.write(f"{error.message}\n{error.hint}\n")
        return 1
    sys.stdout.write(f"{done.library}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
