"""What this node's daemon hands out of its WAL to another node, in a failover.

Lives here: who may have it, up to where, and the two calls between daemons. Must not live here: the
taking side (`fetching`), files (`ramd.postgres.exchange`). Start reading at `Lending`.

Only what can no longer change is handed out: of a server of our own that ended and was given up, to
the end that was found then, or of a replica sealed under the very attempt that asks. Members
alone can ask: the channel between daemons knows who speaks.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ramd import events, fetch_events
from ramd.domain.errors import RamdError, Refused
from ramd.domain.lsn import Lsn, format_lsn
from ramd.domain.observation import Attempt, Position, SealReport
from ramd.execute.context import Ports

END, READ = "wal.end", "wal.read"
CHUNK_BYTES = 1 << 20
SUM_BYTES = 4
SCAN_MS = 3_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for. `at`, `size`: of READ only."""

    epoch: int
    term: int
    number: int
    timeline: int
    at: int = 0
    size: int = 0

    @property
    def attempt(self) -> Attempt:
        return Attempt(term=self.term, number=self.number)

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, raw: bytes) -> Wish:
        """Raises Refused for anything that `encode` did not write."""
        try:
            return cls(**{key: int(value) for key, value in json.loads(raw).items()})
        except (ValueError, TypeError, AttributeError) as error:
            raise Refused(f"not a wish for WAL: {error!r}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Where the WAL ends that can be had. `whole`: the last complete record; behind it, to `upto`,
    is the beginning of another one."""

    upto: Lsn
    whole: Lsn

    def encode(self) -> bytes:
        return json.dumps({"upto": self.upto, "whole": self.whole}).encode()

    @classmethod
    def decode(cls, raw: bytes) -> End:
        """Raises ValueError, KeyError or TypeError for anything that `encode` did not write."""
        said = json.loads(raw)
        return cls(upto=Lsn(int(said["upto"])), whole=Lsn(int(said["whole"])))


def with_sum(data: bytes) -> bytes:
    """Bytes as they travel."""
    return zlib.crc32(data).to_bytes(SUM_BYTES, "big") + data


def without_sum(answer: bytes) -> bytes:
    """Reverse of `with_sum`. Raises Refused if it is not what was sent."""
    data = answer[SUM_BYTES:]
    if not data or zlib.crc32(data) != int.from_bytes(answer[:SUM_BYTES], "big"):
        raise Refused("WAL arrived damaged")
    return data


class Lending:
    """Answers other daemons. `sealed` gives this node's own report, while it stands."""

    def __init__(self, ports: Ports, sealed: Callable[[], SealReport | None]) -> None:
        self._ports = ports
        self._sealed = sealed
        self._told: tuple[Wish, End] | None = None
        """The last end that was told, and to which wish."""

    def register(self) -> None:
        """From now on this node can be asked."""
        self._ports.consensus.register(END, self.end)
        self._ports.consensus.register(READ, self.read)

    async def end(self, taker: int, payload: bytes) -> bytes:
        """Where the WAL ends that `taker` may have. Raises Refused."""
        wish = Wish.decode(payload)
        end = await self._end(wish)
        self._told = (wish, end)
        lent = fetch_events.WalLent(taker=taker, timeline=wish.timeline, upto=format_lsn(end.upto))
        events.emit(lent)
        return end.encode()

    async def read(self, taker: int, payload: bytes) -> bytes:
        """Some bytes, none past the end that was told before. Raises Refused, PostgresError."""
        wish = Wish.decode(payload)
        self._may_have(wish)
        told = self._told
        if told is None or _same(told[0]) != _same(wish):
            raise Refused("its end was not asked for before")
        size = min(wish.size, CHUNK_BYTES, told[1].upto - wish.at)
        if size <= 0:
            raise Refused(f"there is no WAL at {format_lsn(Lsn(wish.at))}")
        at = Position(timeline=wish.timeline, lsn=Lsn(wish.at))
        return with_sum(await self._ports.server.wal.read(at, size))

    def _may_have(self, wish: Wish) -> SealReport | None:
        """This node's report under the attempt; None: the server of the epoch has ended here."""
        ports = self._ports
        if ports.state.epoch != wish.epoch:
            raise Refused(f"the record is at epoch {ports.state.epoch}, not {wish.epoch}")
        if ports.store.record.doubted_epoch >= wish.epoch:
            raise Refused("its server could not write or flush its WAL")
        report = self._sealed()
        if report is not None and (report.epoch, report.attempt) == (wish.epoch, wish.attempt):
            return report
        if ports.ended.epoch != wish.epoch:
            raise Refused("it is not sealed under that attempt")
        return None

    async def _end(self, wish: Wish) -> End:
        report = self._may_have(wish)
        at = await self._ended() if report is None else report.position
        if at is None:
            raise Refused("where its WAL ends could not be found")
        if at.timeline != wish.timeline:
            raise Refused(f"its WAL is on timeline {at.timeline}")
        if report is None:
            return End(upto=at.lsn, whole=at.lsn)
        facts = await self._ports.server.probe(timeout_ms=self._ports.timing.probe_ms)
        if facts.replayed_lsn is None:
            raise Refused("its server does not say how far it has replayed")
        return End(upto=at.lsn, whole=min(at.lsn, facts.replayed_lsn))

    async def _ended(self) -> Position | None:
        """Its end; looked for again, with more time, if it was not found when it was given up."""
        ended = self._ports.ended
        if ended.end is None:
            try:
                ended.end = await self._ports.server.data.end_of_wal(timeout_ms=SCAN_MS)
            except (RamdError, OSError):
                return None
        return ended.end


def _same(wish: Wish) -> tuple[int, Attempt, int]:
    return (wish.epoch, wish.attempt, wish.timeline)
