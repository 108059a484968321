"""What this node must remember of itself over a restart: `state_dir/local.json`.

Lives here: one small file, written whole (temporary file, fsync, rename, fsync of the directory).
What is in it only ever moves towards safety: a latch never falls, a seal never returns to a lower
attempt. Start reading at `LocalStore`.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from ramd.domain.errors import ConfigError, Refused
from ramd.domain.lsn import Lsn
from ramd.domain.observation import Attempt
from ramd.domain.server import Promotion

FILE_NAME = "local.json"
_FORMAT = 1


class Unproven(StrEnum):
    """Why the data directory may not be trusted to start."""

    NO = ""
    REWINDING = "rewinding"
    """A rewind was begun and has not been reported finished: the directory may be half-written."""
    REWOUND = "rewound"
    """Rewound, but the server has not reached a consistent state since."""
    FOUND = "found"
    """Was there before this node's state: whether it is whole, only the lost state could say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealOrder:
    """The seal in force on this node: no WAL from anybody until a Follow not older than this."""

    epoch: int
    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFork:
    """Where the timeline of `epoch`, begun by a promotion here, left its parent."""

    epoch: int
    promotion: Promotion


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRecord:
    """The content of the file."""

    released_epoch: int = 0
    """Highest epoch that this node gave up; no lease of it, or of a lower one, is ever used."""
    opened_epoch: int = 0
    """Highest epoch for which the server was, or was about to be, opened for writing."""
    opened_copy: str = ""
    """The copy that it was opened with; '' not known."""
    seal: SealOrder | None = None
    fork: OwnFork | None = None
    """Kept until the group has recorded it; a restarted daemon goes on reporting it."""
    unproven: Unproven = Unproven.NO
    copy_made_unix_ms: int = 0
    """When the data directory was last made (initdb, clone or rewind), for people."""
    copy: str = ""
    """Which copy of the data it is (rule S4): another one whenever it was made anew. '' unnamed."""
    copy_tie: str = ""
    """The directory that this is the name of, see ServerData.tie; '' not tied yet."""


class LocalStore:
    """Owner of `local.json`. One writer at a time; every change is durable when its call returns.

    Only the latch is effective in memory before it is durable: that direction is always safe.
    """

    def __init__(self, path: Path, record: LocalRecord | None = None) -> None:
        self._path = path
        self._record = record or LocalRecord()
        self._latched = self._record.released_epoch
        self._opened_before: int | None = None
        self._writing = asyncio.Lock()

    @classmethod
    def load(cls, state_dir: Path) -> LocalStore:
        """The store of `state_dir`; a missing file is a blank record.

        Raises ConfigError if the file cannot be read as what this version writes.
        """
        path = state_dir / FILE_NAME
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return cls(path)
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
        return cls(path, _decode(path, raw))

    @property
    def record(self) -> LocalRecord:
        """The record on disk, except that an opening under way does not show yet."""
        if self._opened_before is None:
            return self._record
        return replace(self._record, opened_epoch=self._opened_before)

    @property
    def released_epoch(self) -> int:
        """The latch as it must be obeyed now, durable or about to be."""
        return self._latched

    def latch_now(self, epoch: int) -> None:
        """Obey the release of `epoch` from now on in this process; `latch` makes it durable."""
        self._latched = max(self._latched, epoch)

    async def latch(self, epoch: int) -> None:
        """`released_epoch` is at least `epoch`, durably."""
        self.latch_now(epoch)
        async with self._writing:
            if self._record.released_epoch < epoch:
                await self._write(replace(self._record, released_epoch=epoch))

    @asynccontextmanager
    async def opening(self, epoch: int) -> AsyncIterator[None]:
        """Around the opening of the server for `epoch`, which is noted durably before the body runs
        and shown by `record` after it, whatever its end. It ends a seal.

        Raises Refused if the epoch was released, or was opened before: no epoch resumes.
        """
        before = self._record.opened_epoch
        if epoch <= self._latched:
            raise Refused(f"epoch {epoch} was released by this node and never resumes")
        if epoch <= before:
            raise Refused(f"epoch {before} was opened here already, {epoch} is not newer")
        self._opened_before = before
        try:
            async with self._writing:
                await self._write(
                    replace(
                        self._record,
                        opened_epoch=epoch,
                        opened_copy=self._record.copy,
                        seal=None,
                    )
                )
            yield
        finally:
            self._opened_before = None

    async def seal(self, order: SealOrder) -> None:
        """This node is sealed under `order`. Raises Refused if a higher attempt sealed it."""
        async with self._writing:
            held = self._record.seal
            if held is not None and held.attempt.key() > order.attempt.key():
                raise Refused(
                    f"attempt {text(order.attempt)} is older than {text(held.attempt)},"
                    " which sealed this node"
                )
            if held != order:
                await self._write(replace(self._record, seal=order))

    async def unseal(self, attempt: Attempt | None) -> None:
        """No seal is in force. Raises Refused if one is and `attempt` is lower or not known."""
        async with self._writing:
            held = self._record.seal
            if held is None:
                return
            if attempt is None or attempt.key() < held.attempt.key():
                raise Refused(f"sealed by attempt {text(held.attempt)}; only a newer one unseals")
            await self._write(replace(self._record, seal=None))

    async def mark(self, unproven: Unproven, *, made_unix_ms: int | None = None) -> None:
        """Whether the data directory can be trusted; `made_unix_ms` if it was just made: then it is
        another copy than before."""
        async with self._writing:
            wanted = replace(self._record, unproven=unproven)
            if made_unix_ms is not None:
                wanted = replace(
                    wanted, copy_made_unix_ms=made_unix_ms, copy=new_copy(), copy_tie=""
                )
            if wanted != self._record:
                await self._write(wanted)

    async def tie(self, tie: str) -> str:
        """The directory of the copy is the one that `tie` names. A copy that has no name yet, or
        whose directory was put in place by somebody else, gets a new one. Why it did, or ''."""
        record, why = self._record, ""
        if record.copy and record.copy_tie in ("", tie):
            copy = record.copy
        else:
            why = "its directory is another one" if record.copy else "it had no name"
            copy = new_copy()
        async with self._writing:
            wanted = replace(self._record, copy=copy, copy_tie=tie)
            if wanted != self._record:
                await self._write(wanted)
        return why

    async def note_fork(self, fork: OwnFork) -> None:
        """What the promotion of `fork.epoch` really did."""
        async with self._writing:
            if self._record.fork != fork:
                await self._write(replace(self._record, fork=fork))

    async def forget(self) -> None:
        """Blank again: this node belongs to no cluster any more."""
        async with self._writing:
            await self._write(LocalRecord())
            self._latched = 0

    async def _write(self, record: LocalRecord) -> None:
        # In a thread: heartbeats never wait for this disk. Shielded: a cancelled caller must not
        # leave memory and file telling different stories.
        writing = asyncio.ensure_future(asyncio.to_thread(_replace_file, self._path, record))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})
            if writing.exception() is None:
                self._record = record
            raise
        self._record = record


def new_copy() -> str:
    """A name that no copy has had."""
    return secrets.token_hex(8)


def text(attempt: Attempt) -> str:
    """`term.number`, for people."""
    return f"{attempt.term}.{attempt.number}"


def _replace_file(path: Path, record: LocalRecord) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(_encode(record))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _encode(record: LocalRecord) -> bytes:
    seal, fork = record.seal, record.fork
    return json.dumps(
        {
            "format": _FORMAT,
            "released_epoch": record.released_epoch,
            "opened_epoch": record.opened_epoch,
            "opened_copy": record.opened_copy,
            "seal": seal
            and {"epoch": seal.epoch, "term": seal.attempt.term, "number": seal.attempt.number},
            "fork": fork
            and {
                "epoch": fork.epoch,
                "timeline": fork.promotion.timeline,
                "parent_timeline": fork.promotion.parent_timeline,
                "lsn": fork.promotion.fork_lsn,
            },
            "unproven": record.unproven.value,
            "copy_made_unix_ms": record.copy_made_unix_ms,
            "copy": record.copy,
            "copy_tie": record.copy_tie,
        },
        indent=1,
    ).encode()


def _decode(path: Path, raw: bytes) -> LocalRecord:
    try:
        data = json.loads(raw)
        if data["format"] != _FORMAT:
            raise ValueError(f"format {data['format']!r}, this version knows {_FORMAT}")
        return LocalRecord(
            released_epoch=_count(data["released_epoch"]),
            opened_epoch=_count(data["opened_epoch"]),
            opened_copy=str(data.get("opened_copy", "")),
            seal=_decode_seal(data["seal"]),
            fork=_decode_fork(data["fork"]),
            unproven=Unproven(data["unproven"]),
            copy_made_unix_ms=_count(data["copy_made_unix_ms"]),
            copy=str(data.get("copy", "")),
            copy_tie=str(data.get("copy_tie", "")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is damaged: {error!r}",
            hint="it says which epochs this node gave up: restore it, or remove the node and add"
            " it again",
        ) from error


def _decode_seal(data: dict[str, object] | None) -> SealOrder | None:
    if data is None:
        return None
    attempt = Attempt(term=_count(data["term"]), number=_count(data["number"]))
    return SealOrder(epoch=_count(data["epoch"]), attempt=attempt)


def _decode_fork(data: dict[str, object] | None) -> OwnFork | None:
    if data is None:
        return None
    promotion = Promotion(
        timeline=_count(data["timeline"]),
        parent_timeline=_count(data["parent_timeline"]),
        fork_lsn=Lsn(_count(data["lsn"])),
    )
    return OwnFork(epoch=_count(data["epoch"]), promotion=promotion)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value
