"""Everything that exists while this daemon is a member of a cluster: its life and its end.

Lives here: running the parts, the founding command, what the service and the API are shown. Must
not live here: construction (`assembly`), judgement, actions on a server. Start at `Runtime`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from ramd import events, member_events
from ramd.assembly import Calls, Organs, Surroundings, assemble
from ramd.domain.consensus import PROPOSE_TIMEOUT_S, GroupStatus
from ramd.domain.decision import ClusterView, Leave, Withdraw
from ramd.domain.errors import RamdError
from ramd.domain.model import ClusterState
from ramd.domain.observation import Heard
from ramd.domain.server import StopMode
from ramd.execute.parting import leave_watch
from ramd.herald import Herald
from ramd.link import Link
from ramd.members.steward import Steward
from ramd.membership import differences, founding_members
from ramd.state.commands import Command, DescribeMember, InitCluster, encode

STOP_MS = 2_000
DESCRIBE_AGAIN_NS = 10_000_000_000
FRESH_NS = 2_000_000_000
"""A node heard of within this counts as in touch for the functions inside the server."""


class End(StrEnum):
    """Why a node's time in its cluster is over."""

    DESTROYED = "destroyed"
    REMOVED = "removed"


@dataclass(slots=True)
class Course:
    """What was done once, or is under way."""

    founding: bool = False
    compared: bool = False
    describe_ns: int = 0
    """Not again before this."""
    removed: bool = False
    """It was said that this node was removed."""
    undone: bool = False
    """The membership is undone: the server ends with it."""


class Runtime:
    """A member with its server. `open`, then `run` until cancelled, then `close`."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._organs: Organs | None = None
        self._steward: Steward | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._herald = Herald()
        self._course = Course()
        self._listeners: list[Callable[[], None]] = []

    @classmethod
    async def open(cls, around: Surroundings, *, forming: Callable[[str], None]) -> Self:
        """A member that is put together and does not run yet.

        Waits for the other members as long as it takes. Raises ConfigError, Refused, PostgresError.
        """
        runtime = cls(around)
        calls = Calls(propose=runtime.propose, beaten=runtime._beaten, forming=forming)
        runtime._organs = await assemble(around, calls)
        runtime._steward = Steward(
            runtime.link,
            spawn=runtime._spawn,
            granting=lambda: runtime._parts.coordinator.granting,
            clock=around.clock,
            unix_ms=around.unix_ms,
        )
        return runtime

    async def run(self) -> None:
        """Be a member until cancelled. An error that ends it is a bug or a failed storage: the
        daemon must end then."""
        organs = self._parts
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for life in (
                organs.membership.run(),
                organs.observer.run(),
                organs.guard.run(),
                organs.executor.run(),
                organs.syncing.run(),
                organs.loop.run(),
            ):
                tasks.create_task(life)

    async def close(self) -> None:
        """End this member. A server that checks the lease itself is left to it; any other that may
        write stays under a watch: it is stopped at the end of its lease unless a daemon has
        taken it over by then."""
        organs = self._parts
        if self._course.undone:
            # Only now: nothing is left that would start it again.
            await organs.server.stop(StopMode.IMMEDIATE, timeout_ms=STOP_MS)
        fence = organs.server.fence
        may_write = organs.guard.watching and organs.server.running and not fence.guards
        async with organs.server:
            await organs.membership.close()
        organs.note.close()
        fence.close()
        # After the lock: the watch takes whoever holds it for the daemon that took over.
        if may_write:
            leave_watch(
                state_dir=self._around.config.state_dir,
                data_dir=self._around.config.postgresql_data_dir,
                margin_ms=organs.guard.margin_ms,
            )

    # --- what it looks like from outside -------------------------------------------------------

    @property
    def link(self) -> Link:
        return self._parts.membership.link

    @property
    def state(self) -> ClusterState:
        return self.link.state()

    @property
    def status(self) -> GroupStatus:
        return self.link.status()

    @property
    def heard(self) -> tuple[Heard, ...]:
        return self._parts.loop.board

    @property
    def ended(self) -> End | None:
        """Nothing is left for this node to do in its cluster: that is destroyed, or this node was
        removed from it and its server is stopped."""
        executor = self._parts.executor
        if not executor.standing().settled:
            return None
        if isinstance(executor.goal, Withdraw):
            return End.REMOVED
        leaving = self.state.removal is not None and isinstance(executor.goal, Leave)
        return End.DESTROYED if leaving else None

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every beat."""
        self._listeners.append(listener)

    def view(self) -> ClusterView:
        """One coherent picture for `preflight` and `explain`, on any node."""
        heard = {h.observation.node_id: h for h in self.heard}
        return self._parts.coordinator.view(self._around.clock(), self.status, heard)

    def undo_at_end(self) -> None:
        """This membership is undone: its end is an immediate end of this node's server too."""
        self._course.undone = True

    def propose(self, command: Command) -> None:
        """Hand a command to the group; losing it is logged, never waited for."""
        self._spawn(self._propose(encode(command), type(command).__name__))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as part of this runtime; an error that it does not handle ends the daemon."""
        if self._tasks is None:
            work.close()
            return
        self._tasks.create_task(work)

    @property
    def _parts(self) -> Organs:
        assert self._organs is not None, "not put together yet"
        return self._organs

    def _beaten(self) -> None:
        status, state = self.status, self.state
        if state.formed and not self._course.compared and state.member(status.me) is not None:
            self._course.compared = True
            self._compare(state)
        if state.formed and state.removal is None and status.has_quorum:
            self._describe(state)
        ours_to_found = status.is_coordinator and status.ready and not state.formed
        if ours_to_found and not self._course.founding:
            self._course.founding = True
            self._spawn(self._found())
        if status.is_coordinator and status.ready and self._steward is not None:
            self._steward.turn(self.view())
        if status.removed and not self._course.removed:
            self._course.removed = True
            events.emit(member_events.NodeRemoved(how=status.removed))
        self._herald.tell(status, state)
        self._tell_server(status, state)
        for listener in self._listeners:
            listener()

    def _tell_server(self, status: GroupStatus, state: ClusterState) -> None:
        now_ns = self._around.clock()
        heard = {h.observation.node_id for h in self.heard if now_ns - h.received_ns < FRESH_NS}
        self._parts.server.fence.tell(status, state, heard, now_ns)

    def _compare(self, state: ClusterState) -> None:
        """The file's node list no longer decides; that it differs is said once."""
        config = self._around.config
        if config.forms_cluster:
            found = differences(config.members(), state.members)
        else:
            own = (m for m in state.members if m.node_id == config.node_id)
            found = differences((config.own_member(),), own)
        for what in found:
            events.emit(events.ConfigWarning(key="node list", what=what))

    def _describe(self, state: ClusterState) -> None:
        """Name and tags stand in each node's own file: the group is told when they differ."""
        own, known = self._around.config.own_member(), state.member(self._around.config.node_id)
        if known is None:
            return
        wanted = (own.name, own.priority, own.nofailover, own.nosync)
        said = (known.name, known.priority, known.nofailover, known.nosync)
        now_ns = self._around.clock()
        if wanted == said or now_ns < self._course.describe_ns:
            return
        self._course.describe_ns = now_ns + DESCRIBE_AGAIN_NS
        self.propose(
            DescribeMember(
                node_id=own.node_id,
                name=own.name,
                priority=own.priority,
                nofailover=own.nofailover,
                nosync=own.nosync,
            )
        )

    async def _found(self) -> None:
        """The first coordinator says who the cluster is; every listed member knows the same."""
        config = self._around.config
        command = InitCluster(
            cluster_id=self._parts.membership.cluster_id,
            cluster_name=config.cluster_name,
            members=founding_members(config),
            settings=config.settings(),
            at_unix_ms=self._around.unix_ms(),
        )
        try:
            await self._propose(encode(command), "founding")
        finally:
            self._course.founding = False

    async def _propose(self, command: bytes, what: str) -> None:
        try:
            await self.link.propose(command, timeout_s=PROPOSE_TIMEOUT_S)
        except RamdError as error:
            events.emit(events.ProposalLost(what=what, why=error.message))
