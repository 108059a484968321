"""`make ext`: the extension for every server on this host that has headers.

The embedded server, whatever lies in /usr/lib/postgresql, and what tools/server_headers.sh fetched
for tests. Exit status 1 if none could be built.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pgraft.extension.build import BuildError, build, build_root
from ramd.domain.errors import ConfigError
from ramd.postgres.binaries import Binaries, find_postgres

SYSTEM = Path("/usr/lib/postgresql")
CACHE = Path(__file__).resolve().parents[1] / ".cache"


def servers() -> Iterator[Binaries | ConfigError]:
    """Every server at hand, or why one is none."""
    places: list[Path | None] = [None, *sorted(SYSTEM.glob("*/bin"))]
    places += sorted(CACHE.glob("celerp/**/bin/"))
    for place in places:
        try:
            yield find_postgres(place)
        except ConfigError as error:
            yield error


def fetched_headers(major: int) -> Path | None:
    """Headers that were unpacked for tests, if this version's are."""
    found = CACHE / "headers" / str(major) / "usr/include/postgresql" / str(major) / "server"
    return found if (found / "postgres.h").exists() else None


def main() -> int:
    built = 0
    for server in servers():
        if isinstance(server, ConfigError):
            print(f"ext: {server.message}")
            continue
        try:
            done = build(
                server.bin_dir / "pg_config",
                build_root(),
                headers=fetched_headers(server.major),
                server_version=server.version,
            )
        except BuildError as error:
            print(f"ext: PostgreSQL {server.version}: {error.message}; {error.hint}")
            continue
        built += 1
        print(f"ext: PostgreSQL {server.version}: {done.library}")
    return 0 if built else 1


if __name__ == "__main__":
    sys.exit(main())
