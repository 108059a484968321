"""The place where at most one `Runtime` lives: entering a cluster, leaving it, what is shown of it.

Lives here: the stages clusterless → forming → formed and back, and what is cleared away when a
cluster has ended. Must not live here: use cases of people (`service`), construction (`runtime`).
Start reading at `Host.enter`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from ramd import events, member_events
from ramd.assembly import Surroundings
from ramd.config.model import Config
from ramd.config.tls import TlsFault, TlsFindings, TlsPaths, examine
from ramd.domain.errors import ConfigError, Refused
from ramd.domain.model import Member
from ramd.domain.observation import DataKind, Heard, Observation, ServerState
from ramd.domain.service import DaemonFacts, DaemonStatus, Snapshot, Stage
from ramd.execute.local import LocalStore, Unproven
from ramd.formation import CREATED_MARK
from ramd.link import RAFT_DIR, PeerTls, belongs, founded, resume
from ramd.members import removed
from ramd.membership import holds_members_data, refuse_lost_state, save_members
from ramd.postgres.site import SOCKET_DIR
from ramd.runtime import End, Runtime

T = TypeVar("T")

NS_PER_S = 1_000_000_000
LINGER_S = 1.0
LINGER_MAX_S = 15.0
SILENT_NS = 3 * NS_PER_S
DESTROYED_MARK = "destroyed.json"
"""In the state directory of a node whose cluster a person destroyed: it forms none by itself."""
OWN_FILES = (
    "local.json",
    "lease",
    "members.json",
    "cluster_secret",
    "postgresql.ramd.conf",
    "pg_hba.conf",
    "passfile",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """What is fixed for the life of the daemon."""

    config: Config
    version: str
    started_ns: int
    stop: Callable[[str], None]
    """End the daemon, with a reason for people."""


@dataclass(slots=True)
class Phase:
    """How far this daemon is."""

    stage: Stage = Stage.CLUSTERLESS
    forming_text: str = ""
    status: DaemonStatus = DaemonStatus.RUNNING
    finishing: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    certificate: TlsFindings | None = None
    """Of the TLS files in force."""
    secret_file: Path | None = None
    """With which the group was entered last."""


class Host:
    """Owns the runtime. All calls from the control loop's thread, except `picture`."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.runtime: Runtime | None = None
        self._phase = Phase(certificate=_certificate(daemon.config))
        self._tls = PeerTls(daemon.config.tls)
        self._life: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._picture = self._draw()

    @property
    def picture(self) -> Snapshot:
        """The latest coherent picture; replaced whole, so any thread may read it."""
        return self._picture

    @property
    def changed(self) -> asyncio.Event:
        """Set after every beat; clear it before waiting."""
        return self._phase.changed

    def now_ns(self) -> int:
        """CLOCK_BOOTTIME, the clock of every decision."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def unix_ms(self) -> int:
        """Wall clock, for people only."""
        return time.time_ns() // 1_000_000

    def expects_cluster(self) -> bool:
        """At start: this daemon belongs to a group, or its file lists one to form, or says whom to
        join. One that was removed stays out, and says how it comes back."""
        config = self.daemon.config
        resume(config.state_dir)  # of a recovery that a crash interrupted
        if removed.is_removed(config.state_dir):
            self._stay_out()
            return False
        if belongs(config.state_dir):
            return True
        wanted = config.forms_cluster or bool(config.join)
        return wanted and not (config.state_dir / DESTROYED_MARK).exists()

    async def enter(self, members: tuple[Member, ...], secret_file: Path) -> None:
        """Join or form the cluster and live in it from now on. Waits for the other members.

        Raises ConfigError, Refused, PostgresError; the daemon is clusterless again then.
        """
        if self._phase.stage is not Stage.CLUSTERLESS:
            raise Refused("this daemon is in a cluster, or forming one", code="cluster_exists")
        self._phase.secret_file = secret_file
        around = Surroundings(
            config=self.daemon.config,
            members=members,
            secret_file=secret_file,
            version=self.daemon.version,
            clock=self.now_ns,
            unix_ms=self.unix_ms,
            tls=self._tls,
        )
        if not belongs(self.daemon.config.state_dir):
            await self._begin(self.daemon.config)
        if members and not founded(self.daemon.config.state_dir, self.daemon.config.cluster_name):
            # Also again, as long as nobody has voted: a wrong list is corrected in the file.
            save_members(self.daemon.config.state_dir, members)
        self._set(Stage.FORMING, "starting")
        try:
            runtime = await Runtime.open(around, forming=self._forming)
        except BaseException:
            self._set(Stage.CLUSTERLESS)
            raise
        self.runtime = runtime
        runtime.listen(self._beaten)
        self._set(Stage.FORMED)
        self._life = asyncio.create_task(self._live(runtime), name="runtime")

    async def _begin(self, config: Config) -> None:
        """This node has no state of its own yet. Raises Refused if it has lost it."""
        if not config.join:
            refuse_lost_state(config)
            return
        save_members(config.state_dir, (config.own_member(),))
        if holds_members_data(config):
            # Whether a rewind was under way, say, only the lost state knew: kept aside, not used.
            await LocalStore.load(config.state_dir).mark(Unproven.FOUND)

    async def run(self) -> None:
        """Watch the runtime for as long as the daemon lives; its failure, or that of its end, is
        raised here."""
        while True:
            lives = {task for task in (self._life, self._ending) if task is not None}
            if not lives:
                await asyncio.sleep(0.1)
                continue
            # Bounded: the other of the two may begin meanwhile.
            await asyncio.wait(lives, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in lives if task.done()]:
                self._life = None if self._life is task else self._life
                self._ending = None if self._ending is task else self._ending
                if not task.cancelled():
                    task.result()

    async def end(self) -> None:
        """Leave the group's processes; the server is not touched. No-op without a runtime."""
        life = self._life
        if life is not None:
            life.cancel()
            await asyncio.wait({life})
        self._set(Stage.CLUSTERLESS)

    def renew_tls(self, files: TlsPaths, found: TlsFindings) -> None:
        """Use these files, already examined, for every connection between daemons made from now
        on. Raises ConfigError; the old ones stay in force then."""
        self._tls.renew(files)
        self._phase.certificate = found
        self._picture = self._draw()

    async def reform(self, work: Callable[[], T]) -> T:
        """Leave the group, have `work` change what is stored of it, and enter again; the server is
        not touched. `work` runs in a thread. If it fails, the group is entered as it was.

        Raises what `work` and `enter` raise; if there is no way back, the daemon ends as well.
        """
        secret_file = self._phase.secret_file
        assert secret_file is not None, "in no group"
        await self.end()
        self._set(Stage.FORMING, "the group is made anew")
        try:
            return await asyncio.to_thread(work)
        finally:
            self._set(Stage.CLUSTERLESS)
            try:
                await self.enter((), secret_file)
            except BaseException:
                self.daemon.stop("its group cannot be entered again")
                raise

    def stopping(self) -> None:
        """The daemon is about to end."""
        self._phase.status = DaemonStatus.STOPPING
        self._picture = self._draw()

    # --- inside ------------------------------------------------------------------------------

    async def _live(self, runtime: Runtime) -> None:
        try:
            await runtime.run()
        finally:
            self.runtime = None
            await runtime.close()

    def _forming(self, text: str) -> None:
        events.emit(events.FormingWaits(text=text))
        self._set(Stage.FORMING, text)

    def _set(self, stage: Stage, text: str = "") -> None:
        self._phase.stage = stage
        self._phase.forming_text = text
        self._picture = self._draw()
        self._phase.changed.set()

    def _beaten(self) -> None:
        self._picture = self._draw()
        self._phase.changed.set()
        runtime = self.runtime
        end = runtime.ended if runtime is not None else None
        if runtime is None or end is None or self._phase.finishing:
            return
        self._phase.finishing = True
        work = self._finish(runtime) if end is End.DESTROYED else self._withdraw(runtime)
        self._ending = asyncio.create_task(work, name="finish")

    def _draw(self) -> Snapshot:
        config, phase, runtime = self.daemon.config, self._phase, self.runtime
        certificate = phase.certificate
        facts = DaemonFacts(
            version=self.daemon.version,
            node_id=config.node_id,
            name=config.node_name,
            started_ns=self.daemon.started_ns,
            status=phase.status,
            stage=phase.stage,
            forming_text=phase.forming_text,
            lease_ttl_ms=config.primary_lease_ttl_ms,
            authentication=config.auth_method,
            certificate_until_unix_s=certificate.until_unix_s if certificate else None,
        )
        if runtime is None:
            return Snapshot(taken_ns=self.now_ns(), daemon=facts)
        epoch, deadline_ns = runtime.link.lease()
        return Snapshot(
            taken_ns=self.now_ns(),
            daemon=facts,
            state=runtime.state,
            group=runtime.status,
            heard=runtime.heard,
            lease_epoch=epoch,
            lease_deadline_ns=deadline_ns,
            view=runtime.view(),
        )

    async def _withdraw(self, runtime: Runtime) -> None:
        """This node was removed and its server is stopped: out of the group, everything kept."""
        name = runtime.state.cluster_name or self.daemon.config.cluster_name
        how = runtime.status.removed
        await self.end()
        removed.save(self.daemon.config.state_dir, cluster_name=name, how=how, at=stamp())
        self._phase.finishing = False
        self._stay_out()

    def _stay_out(self) -> None:
        config = self.daemon.config
        name = removed.cluster_of(config.state_dir) or config.cluster_name
        advice = removed.advice(config.node_id, config.state_dir, name)
        events.emit(member_events.StaysRemoved(advice=advice))
        self._set(Stage.REMOVED, advice)

    async def _finish(self, runtime: Runtime) -> None:
        """The cluster was destroyed and this node has left it: wait for the others, clear up."""
        removal = runtime.state.removal
        assert removal is not None
        name = runtime.state.cluster_name
        until_ns = self.now_ns() + int(LINGER_MAX_S * NS_PER_S)
        while not others_left(runtime, self.now_ns()) and self.now_ns() < until_ns:
            await asyncio.sleep(LINGER_S / 10)
        await asyncio.sleep(LINGER_S)
        await self.end()
        state_dir = self.daemon.config.state_dir
        created = (state_dir / CREATED_MARK).exists()
        clear_state(state_dir, remove=removal.remove_data)
        self._phase.finishing = False
        what = "this daemon ends" if created else "this daemon stays, without a cluster"
        events.emit(events.ClusterEnded(cluster_name=name, what=what))
        if created:
            self.daemon.stop("its cluster was destroyed")
        else:
            mark = {"cluster_name": name, "at": stamp(), "by": removal.requested_by}
            (state_dir / DESTROYED_MARK).write_text(json.dumps(mark) + "\n")


def _certificate(config: Config) -> TlsFindings | None:
    """Of the files that the daemon starts with. Raises ConfigError if they cannot be used."""
    if config.tls is None:
        return None
    try:
        return examine(config.tls)
    except TlsFault as fault:
        raise ConfigError(fault.wrong, field=fault.field, hint=fault.right) from fault


def finished(heard: Heard | None, now_ns: int) -> bool:
    """A node of a destroyed cluster has nothing left, or is not heard any more."""
    if heard is None or now_ns - heard.received_ns > SILENT_NS:
        return True
    return left(heard.observation)


def left(seen: Observation) -> bool:
    """A node of a destroyed cluster has neither server nor data left."""
    return seen.data is DataKind.ABSENT and seen.state is ServerState.STOPPED


def others_left(runtime: Runtime, now_ns: int) -> bool:
    """Every other node has left the destroyed cluster, as far as it can be seen from here."""
    heard = {h.observation.node_id: h for h in runtime.heard}
    me = runtime.status.me
    return all(
        finished(heard.get(member.node_id), now_ns)
        for member in runtime.state.members
        if member.node_id != me
    )


def clear_state(state_dir: Path, *, remove: bool) -> None:
    """Remove what made this directory a member's; the group's log is renamed aside unless asked."""
    raft = state_dir / RAFT_DIR
    if raft.exists():
        if remove:
            shutil.rmtree(raft)
        else:
            raft.rename(state_dir / f"{RAFT_DIR}.aside-{stamp()}")
    for name in OWN_FILES:
        (state_dir / name).unlink(missing_ok=True)
    shutil.rmtree(state_dir / SOCKET_DIR, ignore_errors=True)  # of a server that is gone


def stamp() -> str:
    """UTC now, for names of directories kept aside."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
