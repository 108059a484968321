"""The data directory while no server runs on it. Start reading at `DataDir`."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ramd.domain.errors import PostgresError, Refused
from ramd.domain.observation import DataKind, Position
from ramd.domain.server import CLEAN, ControlState, DataDirectory, Upstream
from ramd.postgres.control import Control, ControlFile
from ramd.postgres.files import read_json, remove_file, sync_dir, write_file
from ramd.postgres.make import clone, initdb
from ramd.postgres.orphans import kill_remains, server_processes
from ramd.postgres.pidfile import number
from ramd.postgres.rewind import rewind
from ramd.postgres.site import Site
from ramd.postgres.unfinished import discard, empty, finish, read_note
from ramd.postgres.wal import end_of_wal, missing_file, wal_names

NAMES_MAX = 100
REPLICAS = (ControlState.IN_RECOVERY, ControlState.SHUT_DOWN_IN_RECOVERY)


@dataclass(frozen=True, slots=True)
class DataDir:
    """`ramd.domain.server.ServerData` on a real directory. `in_use` tells whether the postmaster
    that we watch lives: then everything but looking is refused."""

    site: Site
    in_use: Callable[[], bool]
    control: ControlFile

    @property
    def path(self) -> Path:
        return self.site.data_dir

    async def inspect(self) -> DataDirectory:
        """What is there; raises nothing for what it finds wrong, but says so in `why`."""
        note = read_note(self.site)
        if note is not None and note.path == self.path:
            return DataDirectory(kind=DataKind.PARTIAL, why=f"a {note.what} did not finish")
        found = self._without_control()
        if found is not None:
            return found
        names = wal_names(self.site.wal_dir)
        try:
            control = await self.control.read()
        except PostgresError as error:
            return self._foreign(error.message)
        return self._described(control, names)

    def tie(self) -> str:
        """See ServerData. Of a file that the server never writes again. Not the device: its number
        may be another one after a restart of the host."""
        try:
            found = (self.path / "PG_VERSION").stat()
        except OSError:
            return ""
        return f"{found.st_ino}:{found.st_mtime_ns}"

    async def initdb(self) -> None:
        """See ServerData."""
        await initdb(self.site)

    async def kill_remains(self, *, timeout_ms: int) -> None:
        """See ServerData; also removes the lock files of the dead. Refused while a server runs."""
        self._must_be_stopped()
        self.control.read_ahead()  # where its WAL ends is asked next, while nobody takes writes
        await kill_remains(self.site, timeout_ms=timeout_ms)

    async def end_of_wal(self, *, timeout_ms: int) -> Position | None:
        """See ServerData."""
        names, control = wal_names(self.site.wal_dir), await self.control.read()
        if self._missing(control, names):
            return None  # more was written than can be read
        return await end_of_wal(self.site, control, timeout_ms=timeout_ms)

    async def extent(self, *, timeout_ms: int) -> Position | None:
        """See ServerData."""
        control = await self.control.read()
        if control.state not in REPLICAS or not control.recovery_lsn:
            return None
        needed = Position(timeline=control.recovery_timeline, lsn=control.recovery_lsn)
        end = await end_of_wal(self.site, control, timeout_ms=timeout_ms)
        return needed if end is None or end.lsn < needed.lsn else end

    async def clone(self, upstream: Upstream) -> None:
        """See ServerData."""
        self._must_be_stopped()
        await clone(self.site, upstream)

    async def rewind(self, upstream: Upstream) -> None:
        """See ServerData."""
        self._must_be_stopped(really=True)
        await rewind(self.site, upstream)

    async def set_aside(self, reason: str) -> Path:
        """Rename to `<dir>.aside-<UTC stamp>`, without its lock file, and list it in aside.json."""
        self._must_be_stopped(really=True)
        now = datetime.now(UTC)
        target = free_name(self.path, now.strftime("%Y%m%dT%H%M%SZ"))
        self.site.prepare()
        listed = read_json(self.site.aside_file) or []
        listed.append({"path": str(target), "reason": reason, "at": now.isoformat()})
        write_file(self.site.aside_file, json.dumps(listed, indent=1) + "\n", None)
        (self.path / "postmaster.pid").unlink(missing_ok=True)
        try:
            self.path.rename(target)
        except OSError as error:
            raise PostgresError(
                f"{self.path} cannot be renamed aside: {error.strerror}",
                hint="a mount point cannot: put the data directory one level below it",
            ) from error
        sync_dir(target.parent)
        note = read_note(self.site)
        if note is not None and note.path == self.path:
            finish(self.site)
        return target

    async def remove_data(self) -> None:
        """See ServerData. Only a data directory or an unfinished one is removed."""
        self._must_be_stopped(really=True)
        found = await self.inspect()
        if found.kind is DataKind.FOREIGN:
            raise Refused(f"{self.path} is not removed: {found.why}", code="foreign_directory")
        await discard(self.site)
        if self.path.exists():
            await asyncio.to_thread(self._remove)
        note = read_note(self.site)
        if note is not None and note.path == self.path:
            finish(self.site)

    def _remove(self) -> None:
        # The name goes first: what is left of an interrupted removal is no data directory.
        remove_file(self.path / "PG_VERSION")
        empty(self.path)
        if not self.path.is_mount():
            shutil.rmtree(self.path)

    def _without_control(self) -> DataDirectory | None:
        try:
            names = [entry.name for entry in self.path.iterdir()]
        except FileNotFoundError:
            return DataDirectory(kind=DataKind.ABSENT)
        except OSError as error:
            return self._foreign(f"{error.strerror}")
        if not names:
            return DataDirectory(kind=DataKind.ABSENT)
        if "PG_VERSION" not in names:
            return self._foreign("it is not empty and no data directory of PostgreSQL")
        version = (self.path / "PG_VERSION").read_text(encoding="utf-8", errors="replace").strip()
        major = number(version.split(".")[0])
        if major != self.site.binaries.major:
            return self._foreign(
                f"it is of PostgreSQL {version}, the programs are of {self.site.binaries.version}",
                major,
            )
        if not (self.path / "global" / "pg_control").exists():
            return self._foreign("it has no global/pg_control", major)
        return None

    def _foreign(self, why: str, major: int | None = None) -> DataDirectory:
        return DataDirectory(kind=DataKind.FOREIGN, why=why, major=major)

    def _described(self, control: Control, names: frozenset[str]) -> DataDirectory:
        return DataDirectory(
            kind=DataKind.CLUSTER,
            major=self.site.binaries.major,
            system_id=control.system_id,
            control_state=control.state,
            checkpoint_timeline=control.checkpoint_timeline,
            checkpoint_lsn=control.checkpoint_lsn,
            standby_signal=(self.path / "standby.signal").exists(),
            wal_missing=self._missing(control, names),
        )

    def _missing(self, control: Control, names: frozenset[str]) -> str:
        """Of a crashed primary: it recovers to the end of its WAL, wherever that is. The others
        know how far they must get: a replica, one just promoted and a copy never started."""
        copied = (self.path / "backup_label").exists()
        if control.state in CLEAN or copied or control.recovery_lsn or self.in_use():
            return ""
        return missing_file(self.site.wal_dir, names, control)

    def _must_be_stopped(self, *, really: bool = False) -> None:
        """`really` also looks for processes of a server that nobody told us of."""
        if self.in_use():
            raise Refused(f"a server runs on {self.path}")
        if really:
            left = next(server_processes(self.path, self.site.account), None)
            if left is not None:
                raise Refused(f"process {left.pid} of a server still works in {self.path}")


def free_name(path: Path, stamp: str) -> Path:
    """A name beside `path` that nothing has."""
    for count in range(NAMES_MAX):
        suffix = f".{count}" if count else ""
        target = path.with_name(f"{path.name}.aside-{stamp}{suffix}")
        if not target.exists():
            return target
    raise PostgresError(f"no free name beside {path} for {stamp}")
