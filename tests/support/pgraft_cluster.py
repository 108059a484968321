"""N whole pgraft members in one event loop: real log, real forming, TCP on loopback or in memory.

Lives here: starting, stopping and asking members for tests. Must not live here: checks of safety,
time other than the loop's. Start reading at `Cluster`.

    async with Cluster(tmp_path, size=3) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        await leader.node.propose(b"x", 5)
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import msgspec

from pgraft.core.types import (
    NO_NODE,
    Config,
    Entry,
    EntryKind,
    NodeId,
    Role,
    Snapshot,
    Timing,
)
from pgraft.forming import Forming
from pgraft.identity import Founder, Identity, JoinRequest
from pgraft.joining import Joining, JoinTarget
from pgraft.net.asking import TcpAsker
from pgraft.net.channel import Channel
from pgraft.net.memory import MemoryNetwork
from pgraft.net.tcp import TcpOptions, TcpTransport, addresses, parse_address
from pgraft.net.tls import TlsFiles
from pgraft.net.transport import Transport
from pgraft.node import Hooks, Node, NodeOptions, SnapshotOptions, open_node
from pgraft.node.clock import raw_ns
from pgraft.storage.disk import DirectoryLock, Disk, OsDisk
from pgraft.storage.identity_file import load_or_create
from tests.support.ports import free_port_block
from tests.support.wait import wait_for_async

SECRET = b"a secret of the tests, long enough"
FAST = Timing(
    heartbeat_ns=40_000_000,
    election_ns=250_000_000,
    lease_ttl_ns=1_000_000_000,
)
DEADLINE_S = 20.0
NAME_BYTES = 64
"""What a member that takes snapshots remembers of a command, so that its state stays small."""


@dataclass(slots=True)
class Settings:
    """What one member is configured with; a test changes it before the member starts."""

    node: NodeId
    directory: Path
    founders: tuple[Founder, ...]
    cluster_name: str = "test"
    secret: bytes = SECRET
    tls: TlsFiles | None = None
    timing: Timing = FAST
    wrap_disk: Callable[[Disk], Disk] = field(default=lambda disk: disk)
    seed: int = 0
    snapshots: SnapshotOptions | None = None
    """When snapshots are taken; None: never, and the log is never shortened."""
    admit: Callable[[JoinRequest], str] | None = None
    state_bytes: int = 0
    """The state in a snapshot is filled up to this; then no command may end with a zero."""
    freezes: bool = False
    raw_clock: Callable[[], int] | None = raw_ns
    join: JoinTarget | None = None
    """Ask to be admitted instead of forming a group."""


class Member:
    """One running member, from blank to voting. `commands` is what it has applied, in order."""

    def __init__(self, settings: Settings, network: MemoryNetwork | None) -> None:
        self.settings = settings
        self.commands: list[bytes] = []
        self.configs: list[Config] = []
        self.entries: list[Entry] = []
        self.failures: list[BaseException] = []
        self.lock = DirectoryLock(settings.directory)
        self.disk = settings.wrap_disk(OsDisk(settings.directory))
        self.started: Node | None = None
        self._network = network
        self._channel: Channel | None = None
        self._task: asyncio.Task[None] | None = None
        try:
            identity = load_or_create(
                self.disk, settings.node, settings.cluster_name, settings.founders
            )
            if settings.join is None:
                self._channel = Channel(settings.node, _transport(settings, identity, network))
                self._way: Forming | Joining = Forming(self.disk, identity, self.channel)
            else:
                asker = network or TcpAsker(settings.secret)
                rng = random.Random(settings.seed)
                self._way = Joining(self.disk, identity, settings.join, asker, rng)
        except BaseException:
            self.lock.release()
            raise

    @property
    def channel(self) -> Channel:
        """Its end of the peer network; one that joins has none before it was admitted."""
        assert self._channel is not None, self.waits_for()
        return self._channel

    @property
    def forming(self) -> Forming:
        """How the group is formed; of a founder only."""
        assert isinstance(self._way, Forming)
        return self._way

    def waits_for(self) -> str:
        """How far it has come in forming or joining a group, for people."""
        return self._way.status().text()

    @property
    def node(self) -> Node:
        """The running node; a member that still forms has none."""
        assert self.started is not None, self.waits_for()
        return self.started

    async def start(self) -> None:
        """Open the transport and begin to form; does not wait until it is formed."""
        try:
            if self._channel is not None:
                await self._channel.start()
        except BaseException:
            self.lock.release()
            raise
        self._task = asyncio.create_task(self._run())

    def crashed(self) -> BaseException | None:
        """What ended the forming, if something did."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()

    async def stop(self) -> None:
        """End it at whatever step it is; nothing is said to the others but end of file."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._channel is not None:
            await self._channel.close()
        if self.started is not None:
            await self.started.stop()
        self.lock.release()

    async def _run(self) -> None:
        if isinstance(self._way, Forming):
            identity = await self._way.form()
        else:
            identity = await self._way.join()
            transport = _transport(self.settings, identity, self._network)
            self._channel = Channel(self.settings.node, transport)
            await self._channel.start()
        options = NodeOptions(
            timing=self.settings.timing,
            rng=random.Random(self.settings.seed * 1000 + self.settings.node),
            boot=random.SystemRandom().getrandbits(62),
            snapshots=self.settings.snapshots or SnapshotOptions(),
            freezes=self.settings.freezes,
            raw_clock=self.settings.raw_clock,
        )
        shortens = self.settings.snapshots is not None
        hooks = Hooks(
            apply=self._apply,
            snapshot=self._snapshot if shortens else None,
            restore=self._restore if shortens else None,
            on_config=self.configs.append,
            admit=self.settings.admit,
            on_failed=self.failures.append,
        )
        node = open_node(self.disk, identity, self.channel, hooks, options)
        node.start()
        self.started = node

    def _apply(self, entry: Entry) -> None:
        self.entries.append(entry)
        if entry.kind is EntryKind.COMMAND:
            shortens = self.settings.snapshots is not None
            self.commands.append(entry.data[:NAME_BYTES] if shortens else entry.data)

    def _snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self.commands).ljust(self.settings.state_bytes, b"\0")

    def _restore(self, snapshot: Snapshot) -> None:
        assert len(snapshot.data) >= self.settings.state_bytes
        unpacker = msgspec.msgpack.Decoder(list[bytes])
        data = snapshot.data.rstrip(b"\0") if self.settings.state_bytes else snapshot.data
        self.commands[:] = unpacker.decode(data)


def _transport(settings: Settings, identity: Identity, network: MemoryNetwork | None) -> Transport:
    if network is not None:
        return network.transport(identity)
    founders = settings.founders if identity.record is None else identity.record.founders()
    own = next(f.address for f in founders if f.node == settings.node)
    options = TcpOptions(
        listen=parse_address(own),
        peers=addresses(founders, settings.node),
        secret=settings.secret,
        tls=settings.tls,
    )
    return TcpTransport(identity, options, random.Random(settings.seed))


class Cluster:
    """`size` members with node ids 1…size below one directory; all are stopped at the end."""

    def __init__(
        self,
        directory: Path,
        size: int,
        *,
        network: MemoryNetwork | None = None,
        timing: Timing = FAST,
        seed: int = 0,
        snapshots: SnapshotOptions | None = None,
    ) -> None:
        self.network = network
        self.members: dict[NodeId, Member] = {}
        ports = free_port_block(size) if network is None else range(7001, 7001 + size)
        founders = tuple(
            Founder(node=NodeId(number), address=f"127.0.0.1:{port}")
            for number, port in enumerate(ports, 1)
        )
        self.settings = {
            founder.node: Settings(
                node=founder.node,
                directory=directory / f"node{founder.node}",
                founders=founders,
                timing=timing,
                seed=seed,
                snapshots=snapshots,
            )
            for founder in founders
        }
        self._directory = directory

    async def __aenter__(self) -> Cluster:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in list(self.members):
            await self.stop(number)

    async def start(self, number: int) -> Member:
        """Start one member (again); its state is what its directory holds."""
        node = NodeId(number)
        assert node not in self.members, f"node {node} runs"
        settings = self.settings[node]
        settings.directory.mkdir(parents=True, exist_ok=True)
        member = Member(settings, self.network)
        await member.start()
        self.members[node] = member
        return member

    async def invite(self, number: int, token: bytes = b"token") -> Member:
        """Start a blank member that asks all founders in turn to be admitted."""
        node = NodeId(number)
        like = next(iter(self.settings.values()))
        port = free_port_block(1)[0] if self.network is None else 7000 + number
        seeds = tuple(parse_address(founder.address) for founder in like.founders)
        self.settings[node] = replace(
            like,
            node=node,
            directory=self._directory / f"node{number}",
            founders=(),
            wrap_disk=lambda disk: disk,
            join=JoinTarget(seeds=seeds, address=f"127.0.0.1:{port}", token=token),
        )
        return await self.start(number)

    async def stop(self, number: int) -> None:
        """End one member without a word, as a killed process would."""
        await self.members.pop(NodeId(number)).stop()

    async def start_all(self) -> None:
        """Start every member that does not run, and wait until all vote."""
        for node in self.settings:
            if node not in self.members:
                await self.start(node)
        await self.formed()

    async def formed(self) -> None:
        """Wait until every running member is past its forming."""
        await wait_for_async(
            lambda: all(m.started is not None or m.crashed() for m in self.members.values()),
            DEADLINE_S,
            "every member has formed: " + " | ".join(m.waits_for() for m in self.members.values()),
        )
        for member in self.members.values():
            crashed = member.crashed()
            if crashed is not None:
                raise crashed

    async def leader(self, among: set[NodeId] | None = None) -> Member:
        """The one leader that all running members (or those of `among`) agree on."""

        def agreed() -> Member | None:
            members = [m for n, m in self.members.items() if among is None or n in among]
            leaders = {member.node.leader() for member in members}
            leader = leaders.pop()
            if leaders or leader == NO_NODE or leader not in self.members:
                return None
            if among is not None and leader not in among:
                return None
            found = self.members[leader]
            return found if found.node.status().role is Role.LEADER else None

        found = await wait_for_async(agreed, DEADLINE_S, "all members agree on a leader")
        assert found is not None
        return found

    async def applied(self, commands: list[bytes], among: set[NodeId] | None = None) -> None:
        """Wait until every running member (or those of `among`) has applied exactly these."""
        await wait_for_async(
            lambda: all(
                m.commands == commands
                for n, m in self.members.items()
                if among is None or n in among
            ),
            DEADLINE_S,
            f"all members have applied {len(commands)} commands",
        )

    def rename(self, number: int, cluster_name: str) -> None:
        """Give one member another cluster name, from its next start on."""
        node = NodeId(number)
        self.settings[node] = replace(self.settings[node], cluster_name=cluster_name)
