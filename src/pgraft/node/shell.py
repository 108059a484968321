"""One member of a group, for its host: its life, its hooks, its status.

Lives here: putting the parts of a running member together. Must not live here: what it can be
asked (`asking`), rules of Raft (`pgraft.core`), turning the core (`driver`). Start reading at
`open_node`.

Everything here runs in the event loop that called `start`; only the disk has a thread of its own.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pgraft.core.raft import Raft
from pgraft.core.types import (
    NO_NODE,
    Config,
    CoreEvent,
    Entry,
    EventKind,
    Nanos,
    NodeId,
    ReadDone,
    Recovered,
    Snapshot,
    Timing,
)
from pgraft.identity import FoundingRecord, Identity, JoinRequest, Stage
from pgraft.net.channel import Channel
from pgraft.node.admission import Admission
from pgraft.node.asking import Asking, ProposalUnknown
from pgraft.node.clock import ClockCheck, raw_ns
from pgraft.node.counts import Counting, LoopLag, NodeStatus, node_status
from pgraft.node.driver import Driver, DriverEvents, boottime_ns
from pgraft.node.lease import GranterHandle, HolderHandle
from pgraft.node.peers import Peers
from pgraft.node.snapshots import SnapshotOptions, Snapshots
from pgraft.storage.disk import Disk
from pgraft.storage.replay import Recovery, recover
from pgraft.storage.segment import Owner
from pgraft.storage.wal import Wal

_LOOKS_PER_TTL: Final = 20
"""Looks at the clocks: several in each window (see `pgraft.node.clock`)."""


class NodeFailed(Exception):
    """The member has stopped for good. `__cause__` says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the host is told or asked, in the event loop. None of these may block.

    `apply` gets every committed entry of the log exactly once per run, in order, from index 1 or
    right after the snapshot that `restore` was given; it must not fail: an exception stops the
    member. `snapshot` returns the whole state that the entries applied so far have made, and
    `restore` puts such a state in the place of the present one; without both the log is never
    shortened. `on_config` gets the configuration in effect, at the start and whenever it changes.
    `admit` is asked on the leader about a blank member that wants to join: '' if it may, else
    "code: text for people"; the code "later" lets it ask again.
    """

    apply: Callable[[Entry], None]
    snapshot: Callable[[], bytes] | None = None
    restore: Callable[[Snapshot], None] | None = None
    on_config: Callable[[Config], None] | None = None
    admit: Callable[[JoinRequest], str] | None = None
    on_event: Callable[[CoreEvent], None] | None = None
    on_leader_change: Callable[[NodeId], None] | None = None
    on_failed: Callable[[BaseException], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """`boot` is drawn anew by each run of the daemon; `released_epoch` is what it had stored.

    `raw_clock` is compared with `clock` (see `pgraft.node.clock`); None where that has no sense.
    `freezes` takes what is alive when the member starts out of the collection of garbage for good
    (gc.freeze), for the whole process: a full collection of a large heap holds up the loop for
    long enough to cost an election.
    """

    timing: Timing
    rng: random.Random
    boot: int
    released_epoch: int = 0
    clock: Callable[[], Nanos] = boottime_ns
    raw_clock: Callable[[], Nanos] | None = raw_ns
    snapshots: SnapshotOptions = field(default_factory=SnapshotOptions)
    freezes: bool = True


class _Clockwork:
    """Looks at the clocks now and then, while the member runs."""

    def __init__(self, driver: Driver, options: NodeOptions) -> None:
        self._driver = driver
        self._handle: asyncio.TimerHandle | None = None
        self.check: ClockCheck | None = None
        if options.raw_clock is not None:
            self.check = ClockCheck(options.timing, options.clock, options.raw_clock)
        self._pause_s = options.timing.lease_ttl_ns / _LOOKS_PER_TTL / 1e9

    def look(self) -> None:
        """Look, tell the core what is new, and come back later."""
        if self.check is None or not self._driver.running:
            return
        news = self.check.look()
        if news is not None:
            self._driver.on_clock(news)
        self._handle = asyncio.get_running_loop().call_later(self._pause_s, self.look)

    def stop(self) -> None:
        """Never again."""
        if self._handle is not None:
            self._handle.cancel()


class Node(Asking):
    """A running member. Made by `open_node`."""

    def __init__(
        self,
        stored: _Stored,
        channel: Channel,
        hooks: Hooks,
        options: NodeOptions,
    ) -> None:
        driver = Driver(
            stored.raft,
            stored.wal,
            channel.transport,
            DriverEvents(
                apply=self._apply,
                read=self._read,
                event=self._event,
                failed=self._failed,
                restore=self._restore,
                turned=self._turned,
            ),
            clock=options.clock,
            beat_ns=options.timing.heartbeat_ns,
        )
        super().__init__(channel, driver)
        self._hooks = hooks
        self._failure: asyncio.Future[BaseException] = asyncio.Future()
        self._parts = _Parts(
            snapshots=Snapshots(driver, options.snapshots, hooks.snapshot, hooks.restore),
            admission=Admission(channel, driver, self._known, stored.record, hooks.admit),
            clockwork=_Clockwork(driver, options),
            peers=Peers(channel.transport, self._configs),
            recovered=stored.recovery.snapshot,
            freezes=options.freezes,
        )
        self.holder = HolderHandle(driver)
        """The holder's half of the primary lease."""
        self.granter = GranterHandle(driver)
        """The coordinator's half of the primary lease."""

    def start(self) -> None:
        """Begin to vote and to serve. The channel is started by the host, before or after."""
        if self._parts.recovered is not None:
            self._restore(self._parts.recovered)
            self._parts.recovered = None
        listeners, raft = self.channel.listeners, self._driver.raft
        listeners.raft = self._driver.on_message
        listeners.link = self._driver.on_link
        listeners.durable = self._driver.durable
        listeners.position = lambda peer, term, index: (term, index) < raft.confirmed(peer)
        self._serve()
        self._parts.admission.serve()
        self._configured()
        self._driver.start()
        self._parts.clockwork.look()
        if self._parts.freezes:
            gc.collect()
            gc.freeze()

    async def stop(self) -> None:
        """Stop; callers that wait learn that the outcome is unknown. The channel stays open."""
        listeners = self.channel.listeners
        listeners.raft = listeners.link = listeners.durable = listeners.position = None
        self._parts.admission.stop()
        self._parts.clockwork.stop()
        self._parts.peers.stop()
        self._waiting.fail(ProposalUnknown("this node is stopping"))
        await self._driver.stop()

    async def watch(self) -> None:
        """Wait until the member stops by itself. Raises NodeFailed then, and never returns."""
        raise NodeFailed("this member has stopped") from await asyncio.shield(self._failure)

    def status(self) -> NodeStatus:
        """A picture of the core, with what was counted since this member was opened, for people
        and metrics; after a failure, how it was then."""
        driver, check = self._driver, self._parts.clockwork.check
        status = driver.raft.status()
        transport = self.channel.transport
        return node_status(
            status,
            driver.counts,
            driver.lag,
            log_entries=status.last_index - status.snapshot_index,
            disk_sync_ms=driver.disk.syncs.picture(),
            disk=driver.disk.word,
            clock_off=0.0 if check is None else check.off,
            clock_suspect=check is not None and check.suspect,
            refused=dict(transport.refusals()) if isinstance(transport, Counting) else {},
            frames_dropped=transport.dropped() if isinstance(transport, Counting) else 0,
        )

    @property
    def node(self) -> NodeId:
        """Which member this is."""
        return self.channel.node

    def leader(self) -> NodeId:
        """The leader this node knows of, NO_NODE if none."""
        return self._known.node

    @property
    def loop_lag(self) -> LoopLag:
        """How long the event loop stood still."""
        return self._driver.lag

    def _apply(self, entry: Entry) -> None:
        self._hooks.apply(entry)
        self._parts.snapshots.applied(entry)
        self._waiting.on_applied(entry)
        if entry.config is not None:
            self._configured()  # what is committed has changed

    def _read(self, answer: ReadDone) -> None:
        self._waiting.on_read(answer)

    def _turned(self) -> None:
        self._parts.snapshots.turned()

    def _restore(self, snapshot: Snapshot) -> None:
        self._parts.snapshots.restore(snapshot)
        self._waiting.on_restored(snapshot)

    def _configured(self) -> None:
        """Tell who the members are."""
        self._parts.peers.tell()
        config = self._driver.raft.config
        if self._hooks.on_config is not None and config != self._parts.told:
            self._parts.told = config
            self._hooks.on_config(config)

    def _configs(self) -> tuple[Config, Config]:
        status = self._driver.raft.status()
        return status.config, status.committed_config

    def _set_leader(self, leader: NodeId) -> None:
        if self._known.set(leader) and self._hooks.on_leader_change is not None:
            self._hooks.on_leader_change(leader)

    def _event(self, event: CoreEvent) -> None:
        if event.kind in (EventKind.LEADER_CHANGED, EventKind.ROLE_CHANGED):
            self._set_leader(self._driver.raft.status().leader)
        elif event.kind is EventKind.CONFIG_CHANGED:
            self._configured()
        if self._hooks.on_event is not None:
            self._hooks.on_event(event)

    def _failed(self, error: BaseException) -> None:
        self._waiting.fail(ProposalUnknown(f"this node has stopped: {error}"))
        if not self._failure.done():
            self._failure.set_result(error)
        self._set_leader(NO_NODE)
        if self._hooks.on_failed is not None:
            self._hooks.on_failed(error)


@dataclass(slots=True, kw_only=True)
class _Parts:
    snapshots: Snapshots
    admission: Admission
    clockwork: _Clockwork
    peers: Peers
    recovered: Snapshot | None
    """The state to begin with, until it was given to the host."""
    freezes: bool
    told: Config | None = None
    """The configuration that the host was told of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """What was on the disk, ready to run."""

    raft: Raft
    wal: Wal
    record: FoundingRecord
    recovery: Recovery


def owner_of(identity: Identity) -> Owner:
    """Whose log a member's log is. The member must have a founding record."""
    assert identity.record is not None
    return Owner(cluster_id=identity.cluster_id, node=identity.node, uuid=identity.uuid)


def open_node(
    disk: Disk, identity: Identity, channel: Channel, hooks: Hooks, options: NodeOptions
) -> Node:
    """The member stored on `disk`, recovered and not yet started.

    Raises StorageError when the log is damaged, missing or another member's. The caller holds the
    lock of the directory, and has formed or joined a group (`pgraft.forming`).
    """
    assert identity.stage is Stage.STARTED
    assert identity.record is not None
    wal, recovery = recover(disk, owner_of(identity))
    recovered = Recovered(
        hard_state=recovery.hard_state,
        entries=recovery.entries,
        config=identity.record.config(),
        snapshot=recovery.snapshot,
    )
    raft = Raft(
        identity.node,
        recovered,
        options.timing,
        options.rng,
        options.clock(),
        boot=options.boot,
        released_epoch=options.released_epoch,
        since=identity.since,
    )
    stored = _Stored(
        raft=raft,
        wal=wal,
        record=identity.record,
        recovery=recovery,
    )
    return Node(stored, channel, hooks, options)
