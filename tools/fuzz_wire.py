"""Throw damaged bytes at everything that reads from the peer port: `make fuzz SECONDS=60`.

Each case is drawn from its own seed, so a failure prints the command that replays it. What a case
does: take valid bytes, damage them, cut them anywhere, and give them to the reader. Allowed are the
errors that the reader promises, and memory within its limits; anything else ends the run with 1.
"""

import argparse
import itertools
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src")]

# ruff: noqa: E402 - needs the path above
from pgraft import wire
from pgraft.core.types import (
    Append,
    AppendReply,
    Config,
    Entry,
    EntryKind,
    Grant,
    Heartbeat,
    Index,
    InstallSnapshot,
    NodeId,
    Origin,
    PeerRecord,
    Snapshot,
    Term,
    VoteRequest,
)
from pgraft.identity import FoundingRecord, Identity, JoinAnswer, JoinRequest, Stage
from pgraft.net.connection import Connection
from pgraft.net.handshake import Acceptor, Dialer
from pgraft.net.hello import (
    HELLO_BYTES_MAX,
    NONCE_BYTES,
    Hello,
    HelloError,
    HelloRefused,
    parse,
    parse_answer,
)
from pgraft.net.judge import Presence
from pgraft.net.transport import Refusal
from pgraft.wire import Assembly, Call, Cast, Frame, FrameDecoder, WireError

SECRET = b"the secret of the fuzzer"
CONFIG = Config(
    voters=frozenset({NodeId(1), NodeId(2)}),
    peers=tuple(PeerRecord(node=NodeId(n), uuid=f"{n}" * 32, address=f"h{n}:7400") for n in (1, 2)),
)
RECORD = FoundingRecord.of(CONFIG, cluster_id="c" * 32, cluster_name="fuzz")


class Broken(Exception):
    """A promise was broken."""


def frame(rng: random.Random) -> Frame:
    """Any valid frame; one in eight is long enough to travel in parts."""
    size = rng.randrange(70_000, 300_000) if rng.random() < 0.125 else rng.randrange(200)
    data = rng.randbytes(size)
    term, index = Term(rng.getrandbits(63)), Index(rng.getrandbits(63))
    entry = Entry(
        term=term,
        index=index,
        kind=rng.choice(list(EntryKind)),
        data=data,
        config=rng.choice([None, CONFIG]),
        grant=rng.choice([None, Grant(holder=NodeId(1), epoch=1, ttl_ns=1, payload=b"x")]),
        origin=Origin(session=rng.getrandbits(63), serial=1),
    )
    choices: list[Frame] = [
        VoteRequest(term=term, last_index=index, last_term=term, pre=True),
        Append(term=term, prev_index=index, prev_term=term, commit=index, entries=(entry,)),
        AppendReply(term=term, ok=True, match=index),
        Heartbeat(term=term, commit=index, round=1),
        InstallSnapshot(
            term=term, snapshot=Snapshot(index=index, term=term, config=CONFIG, data=data)
        ),
        Cast(method="m", payload=data),
        Call(id=rng.getrandbits(64), method="m" * rng.randrange(100), payload=data),
    ]
    return rng.choice(choices)


def identity(node: int) -> Identity:
    """A member of a started group."""
    return Identity(
        node=NodeId(node),
        uuid=f"{node}" * 32,
        cluster_name="fuzz",
        founders=(),
        stage=Stage.STARTED,
        record=RECORD,
    )


def damage(rng: random.Random, data: bytes) -> bytes:
    """A few changes of a kind that parsers have trouble with."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(out) + 1)
        match rng.randrange(7):
            case 0:
                out[place : place + 1] = rng.randbytes(1)
            case 1:
                del out[place : place + rng.randrange(1, 20)]
            case 2:
                out[place:place] = rng.randbytes(rng.randrange(1, 20))
            case 3:
                out[place:place] = bytes([rng.choice((0x91, 0x81, 0xDD, 0xDF, 0xC6, 0xFF))]) * 40
            case 4:
                end = place + rng.randrange(1, 40)
                out[end:end] = out[place:end]
            case 5:
                out[place : place + 4] = rng.choice((0, 1, 2**31, 2**32 - 1)).to_bytes(4, "big")
            case _:
                if place < len(out):
                    out[place] ^= 1 << rng.randrange(8)
    return bytes(out)


def pieces(rng: random.Random, data: bytes) -> Iterator[bytes]:
    """`data` cut anywhere, often into single bytes at first."""
    while data:
        size = rng.choice((1, 1, 3, 50, 70_000, len(data)))
        yield data[:size]
        data = data[size:]


def travelling(value: Frame) -> bytes:
    """The bytes of a frame as they travel."""
    data = wire.encode(value)
    if len(data) <= wire.PART_BYTES_MAX:
        return data
    sent, out = 0, b""
    while sent < len(data):
        piece, sent = wire.part(data, sent)
        out += piece
    return out


def decoding(rng: random.Random) -> None:
    """One damaged body; what can be read can be written again, and is the same then."""
    body = damage(rng, wire.encode(frame(rng))[4:])
    try:
        value = wire.decode(body)
    except WireError:
        return
    again = wire.decode(wire.encode(value)[4:])
    if again != value:
        raise Broken(f"{value!r} came back as {again!r}")


def splitting(rng: random.Random) -> None:
    """A stream of frames and parts, damaged and cut; what is held stays within the limits."""
    stream = b"".join(travelling(frame(rng)) for _ in range(rng.randint(1, 5)))
    decoder, assembly = FrameDecoder(wire.TRAVELLING_BYTES_MAX), Assembly()
    try:
        for piece in pieces(rng, damage(rng, stream)):
            for body in decoder.feed(piece):
                whole = assembly.take(body)
                if whole is not None:
                    wire.decode(whole)
            check_memory(decoder, assembly)
    except WireError:
        check_memory(decoder, assembly)


def check_memory(decoder: FrameDecoder, assembly: Assembly) -> None:
    """Nothing is held beyond one travelling frame and one long one."""
    if len(decoder._buffer) > wire.TRAVELLING_BYTES_MAX + 300_000 * 5 + 4:
        raise Broken(f"{len(decoder._buffer)} bytes wait for a frame")
    if len(assembly._received) > wire.BODY_BYTES_MAX:
        raise Broken(f"{len(assembly._received)} bytes of parts")


class Host:
    """Says yes to everything, so that the fuzzer gets as far as it can."""

    def on_join(self, request: JoinRequest) -> JoinAnswer:
        """Admitted."""
        return JoinAnswer.admitted(RECORD)

    def on_position(self, peer: NodeId, term: Term, index: Index) -> bool:
        """Nothing is lost."""
        return False


def sides(rng: random.Random) -> tuple[Dialer, Acceptor]:
    """A dialer that asks to join, or is a member; an acceptor."""
    presence = Presence.of(identity(1))
    if rng.random() < 0.5:
        blank = Identity(node=NodeId(3), uuid="3" * 32, cluster_name="fuzz", founders=())
        request = JoinRequest(node=NodeId(3), uuid="3" * 32, address="h3:1", token=b"t")
        presence = Presence(identity=blank, roster=presence.roster, join=request)
    dialer = Dialer(presence, SECRET, nonce=rng.randbytes(NONCE_BYTES), expected=NodeId(0))
    nonce = rng.randbytes(NONCE_BYTES)
    return dialer, Acceptor(Presence.of(identity(2)), SECRET, nonce=nonce, host=Host())


def greeting(rng: random.Random) -> None:
    """A hello in which one message is damaged on its way: it never succeeds."""
    dialer, acceptor = sides(rng)
    spoiled = rng.randrange(4)
    message, done, altered = dialer.begin()[4:], False, False
    try:
        for step in range(4):
            if step == spoiled:
                damaged = damage(rng, message)
                # A hello counts to the last byte, a proof by what it says.
                same = damaged == message if step < 2 else parse(damaged) == parse(message)
                altered, message = not same, damaged
            parse(message)
            receiver: Dialer | Acceptor = dialer if step % 2 else acceptor
            answer, done = receiver.receive(message)
            message = answer[4:]
    except (HelloError, HelloRefused):
        return
    if altered:
        raise Broken(f"message {spoiled} of the hello was altered and accepted")
    if not done:
        raise Broken("a sound hello did not succeed")


def answering(rng: random.Random) -> None:
    """Bytes that may be an answer, or any message of the hello."""
    for reader in (parse, parse_answer):
        data = damage(rng, rng.randbytes(rng.randrange(1, 100)))
        try:
            value = cast(Callable[[bytes], object], reader)(data)
        except HelloError:
            continue
        if not isinstance(value, Hello | JoinAnswer) and reader is parse_answer:
            raise Broken(f"an answer that is none: {value!r}")


class Socket:
    """A transport that keeps nothing."""

    def __init__(self) -> None:
        self.closed = False
        self.written = bytearray()

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """Nothing waits."""

    def write(self, data: bytes) -> None:
        """Kept, for the hello."""
        self.written += data

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def close(self) -> None:
        """Closed."""
        self.closed = True

    abort = close

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Nothing is known."""
        return default


class Events:
    """Who is told about the connection."""

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []
        self.frames = 0

    def opened(self, connection: Connection, peer: Hello) -> None:
        """Fine."""

    def frame(self, connection: Connection, frame: Frame) -> None:
        """One more."""
        self.frames += 1

    def refused(self, refusal: Refusal) -> None:
        """Kept."""
        self.refusals.append(refusal)

    def closed(self, connection: Connection) -> None:
        """Fine."""


class _Quiet(Connection):
    """Without a timer: there is no loop here."""

    def connecting(self, transport: Any) -> None:
        """The socket only."""
        self._socket.transport = transport


def connecting(rng: random.Random) -> None:
    """A whole connection: a sound hello, then a damaged stream; it closes, or goes on."""
    dialer, acceptor = sides(rng)
    events, socket = Events(), Socket()
    connection = _Quiet(acceptor, Stage.STARTED, events)
    connection.connection_made(cast(Any, socket))
    connection.data_received(dialer.begin())
    hello = bytes(socket.written[4:])
    proof, _ = dialer.receive(hello)
    connection.data_received(proof)
    stream = b"".join(travelling(frame(rng)) for _ in range(rng.randint(1, 4)))
    for piece in pieces(rng, damage(rng, stream)):
        connection.data_received(piece)
        if socket.closed:
            break
    if len(events.refusals) > 1:
        raise Broken(f"refused {len(events.refusals)} times")
    limit = wire.TRAVELLING_BYTES_MAX + len(stream) + HELLO_BYTES_MAX
    if len(connection._reader._frames._buffer) > limit:
        raise Broken("more is held than came")


CASES: dict[str, Callable[[random.Random], None]] = {
    "decoding": decoding,
    "splitting": splitting,
    "greeting": greeting,
    "answering": answering,
    "connecting": connecting,
}


def run(seed: int, number: int) -> str:
    """One case; its name. Raises Broken or whatever should not have been raised."""
    name = list(CASES)[number % len(CASES)]
    CASES[name](random.Random(f"{seed}/{number}"))
    return name


def main(argv: list[str] | None = None) -> int:
    """Run cases for a while; 0 if all promises held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to go on")
    parser.add_argument("--case", type=int, help="this case only")
    options = parser.parse_args(argv)
    end = time.monotonic() + options.seconds
    numbers = itertools.count() if options.case is None else iter([options.case])
    done = 0
    for number in numbers:  # bounded by the time
        try:
            run(options.seed, number)
        except Exception as error:  # boundary: whatever it is, it is what is looked for
            traceback.print_exc()
            print(f"{type(error).__name__} in case {number}; again with:")
            print(f"  python -m tools.fuzz_wire --seed {options.seed} --case {number}")
            return 1
        done += 1
        if time.monotonic() >= end:
            break
    print(f"seed {options.seed}: {done} cases, every promise held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
