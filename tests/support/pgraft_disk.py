"""A disk in memory that forgets what was not synced, tears what was being written, and can fail.

Lives here: `MemoryDisk`, an implementation of `pgraft.storage.disk.Disk`, and `CountingDisk` around
a real one. Must not live here: what the log does with it. Start reading at `MemoryDisk.crash`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pgraft.storage.disk import Disk, DiskFile

SECTOR_BYTES = 512


@dataclass(slots=True)
class _Content:
    durable: bytearray
    pending: list[tuple[int, bytes]] = field(default_factory=list)

    def seen(self) -> bytearray:
        """What a reader sees: the page cache."""
        data = bytearray(self.durable)
        for offset, part in self.pending:
            data[offset : offset + len(part)] = part
        return data


class _File:
    def __init__(self, disk: MemoryDisk, content: _Content) -> None:
        self._disk = disk
        self._content = content

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._content.seen()[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        self._disk.step("write")
        assert offset + len(data) <= len(self._content.durable), "a segment never grows"
        self._content.pending.append((offset, bytes(data)))

    def sync(self) -> None:
        self._disk.step("sync")
        self._content.durable = self._content.seen()
        self._content.pending.clear()

    def close(self) -> None:
        pass


class MemoryDisk:
    """Files that survive `crash` only as far as they were synced. `fail_at` makes one step fail."""

    def __init__(self) -> None:
        self.files: dict[str, _Content] = {}
        self.fail_at: Callable[[str], bool] = lambda kind: False
        self.error = errno.EIO
        self.steps: list[str] = []

    def step(self, kind: str) -> None:
        """Account for one step of `kind` (write, sync, replace, rename, remove)."""
        self.steps.append(kind)
        if self.fail_at(kind):
            raise OSError(self.error, "injected")

    def where(self, name: str) -> str:
        return f"/memory/{name}"

    def names(self) -> list[str]:
        return sorted(self.files)

    def read(self, name: str) -> bytes:
        if name not in self.files:
            raise FileNotFoundError(name)
        return bytes(self.files[name].seen())

    def open(self, name: str) -> DiskFile:
        if name not in self.files:
            raise FileNotFoundError(name)
        return _File(self, self.files[name])

    def replace(self, name: str, data: bytes) -> None:
        self.step("replace")
        self.files[name] = _Content(bytearray(data))

    def rename(self, name: str, new: str) -> None:
        self.step("rename")
        self.files[new] = self.files.pop(name)

    def remove(self, name: str) -> None:
        self.step("remove")
        self.files.pop(name, None)

    def copy(self) -> MemoryDisk:
        """Another disk with the same files, as a reader sees them now."""
        other = MemoryDisk()
        other.files = {name: _Content(content.seen()) for name, content in self.files.items()}
        return other

    def crash(self, keep: Sequence[bool], keep_bytes: int | None = None) -> None:
        """Power loss: of the unsynced sectors only those with a true `keep` (repeated) survive.

        With `keep_bytes`, only that many first bytes of all unsynced writes survive instead.
        """
        for content in self.files.values():
            seen = content.seen()
            if keep_bytes is not None:
                left = keep_bytes
                for offset, part in content.pending:
                    content.durable[offset : offset + min(left, len(part))] = part[:left]
                    left = max(0, left - len(part))
            else:
                touched = sorted(
                    {
                        sector
                        for offset, part in content.pending
                        for sector in range(
                            offset // SECTOR_BYTES, (offset + len(part) - 1) // SECTOR_BYTES + 1
                        )
                    }
                )
                for number, sector in enumerate(touched):
                    if keep and keep[number % len(keep)]:
                        place = slice(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)
                        content.durable[place] = seen[place]
            content.pending.clear()


class CountingDisk:
    """Real files; each sync is counted."""

    def __init__(self, disk: Disk, syncs: list[int]) -> None:
        self.disk = disk
        self.syncs = syncs

    def where(self, name: str) -> str:
        return self.disk.where(name)

    def names(self) -> list[str]:
        return self.disk.names()

    def read(self, name: str) -> bytes:
        return self.disk.read(name)

    def replace(self, name: str, data: bytes) -> None:
        self.disk.replace(name, data)

    def rename(self, name: str, new: str) -> None:
        self.disk.rename(name, new)

    def remove(self, name: str) -> None:
        self.disk.remove(name)

    def open(self, name: str) -> DiskFile:
        return CountingFile(self.disk.open(name), self.syncs)


class CountingFile:
    def __init__(self, file: DiskFile, syncs: list[int]) -> None:
        self.file = file
        self.syncs = syncs

    def read(self, offset: int, size: int) -> bytes:
        return self.file.read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        self.file.write(offset, data)

    def sync(self) -> None:
        self.syncs[0] += 1
        self.file.sync()

    def close(self) -> None:
        self.file.close()
