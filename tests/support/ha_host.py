"""A simulated host: what outlives daemon and server, and what a fault can do to it.

Start reading at `Host`; the daemon is put together in `ha_daemon`, the server in `ha_process`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ramd.domain.server import ControlState, Upstream
from ramd.domain.sync import SyncConf
from ramd.execute.local import LocalRecord, SealOrder
from tests.support.ha_group import GroupDisk
from tests.support.ha_process import Postmaster
from tests.support.ha_time import Actor, HostClock
from tests.support.ha_wal import Directory

if TYPE_CHECKING:
    from tests.support.ha_daemon import Daemon
    from tests.support.ha_members import Joiner
    from tests.support.ha_world import World


STUCK = 1e6
"""Seconds: it does not come to an end."""


@dataclass(slots=True)
class Page:
    """What server and daemon tell each other; in memory, so a reboot takes it away."""

    deadline_ns: int = 0
    lease_start: int = 0
    latched: int = 0
    pid: int = 0
    start: int = 0
    draining: bool = False
    """WAL is flushed as it comes, and sessions with an xid end, until the next lease."""

    def begin(self, pid: int) -> None:
        """A server starts, or begins anew after a crash of one of its processes."""
        self.deadline_ns = self.lease_start = 0
        self.draining = False
        self.pid = pid
        self.start += 1


@dataclass(slots=True)
class Conf:
    """The server's configuration file."""

    upstream: Upstream | None = None
    copy: str = ""
    sync: SyncConf = field(default_factory=SyncConf)


@dataclass(slots=True)
class Note:
    """The lease as the daemon noted it, in this boot of the host."""

    epoch: int = 0
    until_ns: int = 0

    def write(self, epoch: int, deadline_ns: int) -> None:
        self.epoch, self.until_ns = epoch, deadline_ns

    def deadline_ns(self, epoch: int) -> int:
        return self.until_ns if self.epoch == epoch else 0


class Host:
    """One machine. `server`, `daemon` None: none runs. `lost`: powered off."""

    def __init__(self, node_id: int, world: World, clock: HostClock) -> None:
        self.node_id = node_id
        self.world = world
        self.clock = clock
        self.lost = False
        self.disk = Directory()
        self.aside: list[Directory] = []
        self.conf = Conf()
        self.page = Page()
        self.note = Note()
        self.raft = GroupDisk()
        self.uuid = f"state of host {node_id}"
        """Names the state directory."""
        self.since = 0
        """Index of the entry that admitted it."""
        self.joining: Joiner | None = None
        self.record = LocalRecord()
        """`local.json`."""
        self.reported: SealOrder | None = None
        """The seal under which a position was reported last."""
        self.server: Postmaster | None = None
        self.said = ""
        """What the server has said of a flush that failed, since it was started last."""
        self.remains: Postmaster | None = None
        """A server that died and left sessions behind."""
        self.daemon: Daemon | None = None
        self.slow: dict[str, float] = {}
        """What takes longer now: replay, reload, fsync; seconds at most."""
        self.lease = (0, 0)
        """What the group has really granted this host: epoch, deadline by its clock."""

    # --- how long things take ------------------------------------------------------------------

    def fsync_s(self) -> float:
        return self.world.rng.uniform(0.0005, 0.004) + self._slow("fsync")

    def flush_s(self) -> float:
        """Of WAL that was received."""
        return self.fsync_s() + self._slow("flush")

    def replay_s(self) -> float:
        return self.world.rng.uniform(0.0, 0.01) + self._slow("replay")

    def reload_s(self, *, stale: bool = False) -> float:
        return self.world.rng.uniform(0.001, 0.03) + (self._slow("reload") if stale else 0.0)

    def _slow(self, what: str) -> float:
        most = self.slow.get(what, 0.0)
        if most == STUCK:
            return STUCK
        return self.world.rng.uniform(0.0, most) if most else 0.0

    # --- the server ----------------------------------------------------------------------------

    def run_server(self, *, primary: bool) -> Postmaster:
        assert self.server is None
        self.disk.lose_unflushed()
        self.disk.standby_signal = not primary
        self.disk.control = ControlState.IN_PRODUCTION if primary else ControlState.IN_RECOVERY
        self.said = ""
        server = self.server = Postmaster(self, primary=primary)
        if self.world.loads_extension:
            self.page.begin(server.pid)
        return server

    def end_server(self, *, clean: bool, tell: bool = True) -> None:
        """Every process of it ends. Unclean: what was in memory is lost. `tell`: its connections
        are closed by the kernel."""
        server = self.server
        assert server is not None
        server.backends.kill()
        if clean:
            primary = server.primary
            states = (ControlState.SHUT_DOWN_IN_RECOVERY, ControlState.SHUT_DOWN)
            self.disk.control = states[primary]
            self.disk.restart = self.disk.flushed if primary else server.replayed
        self.disk.lose_unflushed()
        self._gone(server, tell=tell)

    def crash_server(self) -> None:
        """SIGKILL of the postmaster: sessions go on until somebody kills them."""
        server = self.server
        if server is not None:
            self.remains = server
            self._gone(server, tell=True)

    def fail_flush(self) -> None:
        """A flush of WAL fails, and the server ends by that. What it had written can still be read
        here; no client and no replica was told of it."""
        assert self.server is not None
        self.said = "could not fdatasync"
        self.disk.flushed = len(self.disk.wal)
        self.end_server(clean=False)

    def _gone(self, server: Postmaster, *, tell: bool) -> None:
        for sender in list(server.senders) if tell else ():
            sender.end()
        server.actor.kill()
        self.server = None
        if server.receiver is not None:
            server.receiver.over = True
        server.exited.set()

    def kill_remains(self) -> None:
        if self.remains is not None:
            self.remains.backends.kill()
            self.remains = None
            self.disk.lose_unflushed()

    # --- the host ------------------------------------------------------------------------------

    def acknowledges(self, server: Postmaster) -> bool:
        """A session of `server` may confirm a commit now, by what it reads in the page."""
        if not self.world.loads_extension:
            return True
        page = self.page
        same = page.lease_start == page.start and page.pid == server.pid
        return same and self.clock() < page.deadline_ns

    def power_off(self) -> None:
        """Everything in memory is gone."""
        if self.daemon is not None:
            self.daemon.kill()
        if self.joining is not None:
            self.joining.actor.kill()
            self.joining = None
        self.kill_remains()
        if self.server is not None:
            self.end_server(clean=False, tell=False)
        self.page = Page()
        self.note = Note()
        self.lost = True

    def actors(self) -> list[Actor]:
        """Every process that runs here now."""
        found = [self.daemon.actor] if self.daemon is not None else []
        for server in (self.server, self.remains):
            if server is not None:
                found += [server.actor, server.backends]
        return found
