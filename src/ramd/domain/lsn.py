"""Log sequence numbers: positions in PostgreSQL's write-ahead log, as plain ordered integers."""

from __future__ import annotations

from typing import NewType

Lsn = NewType("Lsn", int)
"""Byte position in the WAL, as PostgreSQL's XLogRecPtr (access/xlogdefs.h). 0 is invalid."""

LSN_MAX = (1 << 64) - 1


def parse_lsn(text: str) -> Lsn:
    """The LSN that PostgreSQL prints as `16/B374D848`. Raises ValueError on anything else."""
    high, slash, low = text.strip().partition("/")
    if not slash or not high or not low or len(high) > 8 or len(low) > 8:
        raise ValueError(f"not an LSN: {text!r} (expected two hexadecimal numbers around '/')")
    return Lsn((int(high, 16) << 32) | int(low, 16))


def format_lsn(lsn: Lsn) -> str:
    """As PostgreSQL prints it: `%X/%X`, or with eight low digits from 19 on; parse takes both."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
