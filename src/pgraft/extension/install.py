"""Copies of a build in the server's own directories, for CREATE EXTENSION before PostgreSQL 18.

A server loads the library without any copy (dynamic_library_path); only the control file and the
SQL have to lie where older servers look. Start reading at `install`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pgraft.extension.build import LIBRARY, Build, BuildError, ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a server looks: `library_dir` for libraries, `extension_dir` for control files."""

    library_dir: Path
    extension_dir: Path


def places_of(pg_config: Path) -> Places:
    """As the server's own pg_config says. Raises BuildError."""
    return Places(
        library_dir=_asked(pg_config, "--pkglibdir"),
        extension_dir=_asked(pg_config, "--sharedir") / "extension",
    )


def install(build: Build, places: Places) -> tuple[Path, ...]:
    """Copy `build` to `places`; returns what was written. All or, if a directory cannot be written,
    nothing: BuildError says which, and what still works without."""
    for folder in (places.library_dir, places.extension_dir):
        if not os.access(folder, os.W_OK):
            raise BuildError(
                f"{folder} cannot be written by this user",
                "run this command as root; without it the fence works all the same, and only"
                " CREATE EXTENSION pgraft does not",
            )
    shared = sorted((build.share / "extension").iterdir())
    pairs = [(path, places.extension_dir / path.name) for path in shared]
    pairs.append((build.library, places.library_dir / LIBRARY))
    for source, target in pairs:
        _replace(source, target)
    return tuple(target for _, target in pairs)


def uninstall(places: Places) -> tuple[Path, ...]:
    """Remove the copies; returns what was removed. Raises BuildError."""
    found = [places.library_dir / LIBRARY, *places.extension_dir.glob("pgraft*")]
    gone = []
    for path in found:
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BuildError(
                f"{path} cannot be removed: {error.strerror}", "run this command as root"
            ) from error
        gone.append(path)
    return tuple(gone)


def _replace(source: Path, target: Path) -> None:
    """A new file under the old name: a server that has the old one mapped keeps it whole."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        shutil.copyfile(source, temporary)
        temporary.chmod(source.stat().st_mode & 0o777)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _asked(pg_config: Path, what: str) -> Path:
    said = ask([str(pg_config), what])
    if not said:
        raise BuildError(
            f"{pg_config} {what} says nothing",
            "name the pg_config of the server; Debian has it in postgresql-server-dev-N",
        )
    return Path(said)
