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

from pgraft.core.types import NO_NODE, Entry, EntryKind, NodeId, Role, Timing
from pgraft.forming import Forming
from pgraft.identity import Founder, Identity
from pgraft.net.channel import Channel
from pgraft.net.memory import MemoryNetwork
from pgraft.net.tcp import TcpOptions, TcpTransport, addresses, parse_address
from pgraft.net.tls import TlsFiles
from pgraft.net.transport import Transport
from pgraft.node import Hooks, Node, NodeOptions, open_node
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


class Member:
    """One running member, from blank to voting. `commands` is what it has applied, in order."""

    def __init__(self, settings: Settings, network: MemoryNetwork | None) -> None:
        self.settings = settings
        self.commands: list[bytes] = []
        self.entries: list[Entry] = []
        self.failures: list[BaseException] = []
        self.lock = DirectoryLock(settings.directory)
        self.disk = settings.wrap_disk(OsDisk(settings.directory))
        try:
            identity = load_or_create(
                self.disk, settings.node, settings.cluster_name, settings.founders
            )
            self.channel = Channel(settings.node, _transport(settings, identity, network))
            self.forming = Forming(self.disk, identity, self.channel)
        except BaseException:
            self.lock.release()
            raise
        self.started: Node | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def node(self) -> Node:
        """The running node; a member that still forms has none."""
        assert self.started is not None, self.forming.status().text()
        return self.started

    async def start(self) -> None:
        """Open the transport and begin to form; does not wait until it is formed."""
        try:
            await self.channel.start()
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
        await self.channel.close()
        if self.started is not None:
            await self.started.stop()
        self.lock.release()

    async def _run(self) -> None:
        identity = await self.forming.form()
        options = NodeOptions(
            timing=self.settings.timing,
            rng=random.Random(self.settings.seed * 1000 + self.settings.node),
            boot=random.SystemRandom().getrandbits(62),
        )
        hooks = Hooks(apply=self._apply, on_failed=self.failures.append)
        node = open_node(self.disk, identity, self.channel, hooks, options)
        node.start()
        self.started = node

    def _apply(self, entry: Entry) -> None:
        self.entries.append(entry)
        if entry.kind is EntryKind.COMMAND:
            self.commands.append(entry.data)


def _transport(settings: Settings, identity: Identity, network: MemoryNetwork | None) -> Transport:
    if network is not None:
        return network.transport(identity)
    own = next(f.address for f in settings.founders if f.node == settings.node)
    options = TcpOptions(
        listen=parse_address(own),
        peers=addresses(settings.founders, settings.node),
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
            )
            for founder in founders
        }

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
            "every member has formed: "
            + " | ".join(m.forming.status().text() for m in self.members.values()),
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
