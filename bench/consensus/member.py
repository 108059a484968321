"""One pgraft member as a process, with a port for the bench's client. `python -m … FILE`.

Lives here: what a host of pgraft does at the least, and the client port. Must not live here: how
members are started and killed (`groups`). Start reading at `run`.

FILE holds a `MemberOptions` as JSON. The member runs on the event loop that the daemon uses.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import random
import signal
import ssl
import sys
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import msgspec

from bench.consensus.wire import Frames, Garbage, Kind, Request
from pgraft.core.types import Entry, NodeId, ProposalRefused, Timing
from pgraft.forming import Forming
from pgraft.identity import Founder
from pgraft.net.channel import Channel
from pgraft.net.tcp import TcpOptions, TcpTransport, addresses, parse_address
from pgraft.node import Hooks, Node, NodeOptions, ProposalUnknown, open_node
from pgraft.storage.disk import DirectoryLock, OsDisk
from pgraft.storage.identity_file import load_or_create

TIMEOUT_S = 10.0
SECRET = b"a secret of the bench, long enough"


class MemberOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What one member is started with. `founders`: "host:port" of all, node ids from 1."""

    node: int
    founders: tuple[str, ...]
    directory: str
    client_port: int
    heartbeat_ms: int
    election_ms: int
    cert: str
    key: str
    ca: str
    loop: str = "asyncio"
    profile: str = ""
    """Where cProfile's figures go when the member is ended by SIGTERM; empty: no profile."""


class ClientPort(asyncio.Protocol):
    """One client. Every put is a task of its own, so any number may be under way."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there to be answered."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Serve every complete request."""
        try:
            for request in self._frames.feed(data):
                self._serve(request)
        except (Garbage, ValueError):
            if self._transport is not None:
                self._transport.abort()

    def _serve(self, request: Request) -> None:
        if request.kind is Kind.PUT:
            task = asyncio.get_running_loop().create_task(self._put(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif request.kind is Kind.STATUS:
            status = self._node.status()
            standing = {"member": status.node, "leader": status.leader, "applied": status.applied}
            self._answer(request, Kind.DONE, msgspec.json.encode(standing))
        else:
            self._answer(request, Kind.DONE, b"")

    async def _put(self, request: Request) -> None:
        try:
            index = await self._node.propose(request.payload, TIMEOUT_S)
        except (ProposalRefused, ProposalUnknown) as error:
            self._answer(request, Kind.FAILED, str(error).encode())
        else:
            self._answer(request, Kind.DONE, b"%d" % index)

    def _answer(self, request: Request, kind: Kind, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.write(Request(request.id, kind, payload).encode())


def server_context(options: MemberOptions) -> ssl.SSLContext:
    """TLS 1.3, and only for those who show a certificate of the same authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(options.cert, options.key)
    context.load_verify_locations(options.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(options: MemberOptions) -> ssl.SSLContext:
    """The other side of `server_context`."""
    context = ssl.create_default_context(cafile=options.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(options.cert, options.key)
    return context


def _apply(entry: Entry) -> None:
    """The bench keeps nothing: what is measured is agreement and the log."""


async def run(options: MemberOptions) -> None:
    """Form or rejoin the group and serve clients until SIGTERM, if it comes."""
    founders = tuple(
        Founder(node=NodeId(number), address=address)
        for number, address in enumerate(options.founders, 1)
    )
    node_id = NodeId(options.node)
    directory = Path(options.directory)
    directory.mkdir(mode=0o700, exist_ok=True)
    lock = DirectoryLock(directory)
    disk = OsDisk(directory)
    identity = load_or_create(disk, node_id, "bench", founders)
    tcp = TcpOptions(
        listen=parse_address(options.founders[options.node - 1]),
        peers=addresses(founders, node_id),
        secret=SECRET,
        **_own_tls(options),
    )
    rng = random.Random()
    channel = Channel(node_id, TcpTransport(identity, tcp, rng))
    await channel.start()
    identity = await Forming(disk, identity, channel).form()
    timing = Timing(
        heartbeat_ns=options.heartbeat_ms * 1_000_000,
        election_ns=options.election_ms * 1_000_000,
    )
    boot = random.SystemRandom().getrandbits(62)
    node = open_node(
        disk,
        identity,
        channel,
        Hooks(apply=_apply),
        NodeOptions(timing=timing, rng=rng, boot=boot),
    )
    node.start()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: ClientPort(node),
        "127.0.0.1",
        options.client_port,
        ssl=server_context(options),
    )
    gc.freeze()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    server.close()
    await channel.close()
    await node.stop()
    lock.release()


def has_own_tls() -> bool:
    """Whether pgraft's transport brings TLS itself."""
    return any(field.name == "tls" for field in fields(TcpOptions))


def _own_tls(options: MemberOptions) -> dict[str, Any]:
    if not has_own_tls():
        return {}
    files = {"cert": Path(options.cert), "key": Path(options.key), "ca": Path(options.ca)}
    return {"tls": import_module("pgraft.net.tls").TlsFiles(**files)}


def peer_tls(loop: Any, options: MemberOptions) -> Any:
    """The loop, with TLS between members if pgraft's transport brings none: on every connection
    that is made without `ssl`."""
    if has_own_tls():
        return loop
    accept, dial = server_context(options), client_context(options)
    create_server, create_connection = loop.create_server, loop.create_connection

    async def served(factory: Callable[[], Any], *where: Any, **more: Any) -> Any:
        return await create_server(factory, *where, **({"ssl": accept} | more))

    async def dialed(factory: Callable[[], Any], *where: Any, **more: Any) -> Any:
        return await create_connection(factory, *where, **({"ssl": dial} | more))

    loop.create_server, loop.create_connection = served, dialed
    return loop


def main() -> int:
    options = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=MemberOptions)
    profile = cProfile.Profile() if options.profile else None
    with asyncio.Runner(loop_factory=lambda: peer_tls(new_loop(options.loop), options)) as runner:
        if profile is None:
            runner.run(run(options))
        else:
            profile.runcall(runner.run, run(options))
            profile.dump_stats(options.profile)
    return 0


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """`asyncio` or `uvloop`."""
    if kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


if __name__ == "__main__":
    sys.exit(main())
