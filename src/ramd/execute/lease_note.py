"""The lease's deadline where the next run of this daemon finds it: `state_dir/lease`.

A daemon that is restarted must know until when its server may write, or it would grant it a time
that nobody granted. The note is memory-mapped and never synced: it has to survive the process, not
the host, because CLOCK_BOOTTIME does not survive the host either. Start reading at `LeaseNote`.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from pathlib import Path

FILE_NAME = "lease"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_RECORD = struct.Struct("<QQQQ")
"""Boot id (folded), epoch, deadline ns, check sum of the three."""


class LeaseNote:
    """One record (epoch, deadline) of this boot of the host. Writing costs a memory copy."""

    def __init__(self, memory: mmap.mmap, boot: int) -> None:
        self._memory = memory
        self._boot = boot
        self._written = (0, 0)

    @classmethod
    def open(cls, state_dir: Path) -> LeaseNote:
        """The note of `state_dir`, made if there is none."""
        descriptor = os.open(state_dir / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size < _RECORD.size:
                os.posix_fallocate(descriptor, 0, mmap.PAGESIZE)
            memory = mmap.mmap(descriptor, _RECORD.size)
        finally:
            os.close(descriptor)
        return cls(memory, zlib.crc32(BOOT_ID.read_bytes()))

    def write(self, epoch: int, deadline_ns: int) -> None:
        """Remember that the lease of `epoch` stands until `deadline_ns`."""
        if (epoch, deadline_ns) == self._written:
            return
        self._written = (epoch, deadline_ns)
        check = _check(self._boot, epoch, deadline_ns)
        self._memory[: _RECORD.size] = _RECORD.pack(self._boot, epoch, deadline_ns, check)

    def deadline_ns(self, epoch: int) -> int:
        """Until when the lease of `epoch` stood as far as was noted in this boot; 0 if nothing
        is known. A record torn by a dying writer counts as nothing."""
        boot, noted, deadline_ns, check = _RECORD.unpack(self._memory[: _RECORD.size])
        if check != _check(boot, noted, deadline_ns) or boot != self._boot or noted != epoch:
            return 0
        return int(deadline_ns)

    def close(self) -> None:
        self._memory.close()


def _check(boot: int, epoch: int, deadline_ns: int) -> int:
    return zlib.crc32(struct.pack("<QQQ", boot, epoch, deadline_ns))
