"""What people may ask of a daemon, as use cases: create, failover, destroy, and looking.

A write proposes to the group and then watches the replicated state until it shows the outcome: any
daemon can serve it, and a change of coordinator half-way changes nothing. Must not live here: HTTP,
rules of failover. Start reading at `RamdService`.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ramd import events, formation, switching
from ramd.config.secret_file import cluster_secret
from ramd.domain.consensus import PROPOSE_TIMEOUT_S
from ramd.domain.errors import OutcomeUnknown, RamdError, Refused, Unavailable
from ramd.domain.model import Removal
from ramd.domain.service import (
    CreateRequest,
    CreateResult,
    DestroyRequest,
    DestroyResult,
    FailoverRequest,
    FailoverResult,
    Snapshot,
    Stage,
    SyncChange,
    SyncChanged,
)
from ramd.host import DESTROYED_MARK, Host, clear_state, left
from ramd.members import orders
from ramd.members.cases import MemberCases
from ramd.policy.syncorder import follows_settings
from ramd.policy.syncset import begun
from ramd.postgres.account import choose_account
from ramd.postgres.conf import give_back
from ramd.postgres.orphans import kill_server_of
from ramd.recovery import Recovery
from ramd.runtime import Runtime
from ramd.standing import all_serve
from ramd.state.commands import Destroy, encode
from ramd.sync_orders import record_order

T = TypeVar("T")

NS_PER_MS = 1_000_000
LOOK_S = 0.05


class RamdService(MemberCases):
    """`ramd.domain.service.Service` over the host's runtime."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._creating = False
        self.recover_quorum = Recovery(host).recover

    def now_ns(self) -> int:
        return self._host.now_ns()

    def snapshot(self) -> Snapshot:
        return self._host.picture

    async def create(self, request: CreateRequest, *, timeout_s: float) -> CreateResult:
        if self._creating or self._host.picture.daemon.stage is not Stage.CLUSTERLESS:
            raise Refused(
                "there is a cluster already, or one is being created",
                code="cluster_exists",
                hint="look at /api/v1/cluster/status",
            )
        self._creating = True
        begun_ns = self.now_ns()
        events.emit(
            events.OperationRequested(
                operation="create", actor=request.actor, what=f"{request.num_nodes} nodes"
            )
        )
        try:
            result = await self._create(request, timeout_s)
        finally:
            self._creating = False
        self._finished("create", begun_ns, f"cluster {result.cluster_id}")
        return result

    async def _create(self, request: CreateRequest, timeout_s: float) -> CreateResult:
        config = self._host.daemon.config
        plans = formation.plan_nodes(config, request)
        formation.check_own(config.postgresql_data_dir)
        formation.check_certificate(config, plans)
        account = choose_account(config.postgresql_data_dir, config.daemon_user or None)
        formation.check(plans, account, frozenset({config.http_port, config.prometheus_port}))
        fresh = not _holds_data(config.postgresql_data_dir)
        made = formation.Made()
        try:
            async with asyncio.timeout(timeout_s):
                secret_file = made.write(plans, config)
                (config.state_dir / DESTROYED_MARK).unlink(missing_ok=True)
                for plan in plans[1:]:
                    made.launch(plan)
                await self._enter(made, plans, secret_file)
                await self._until(lambda: self._created(made, plans))
        except (RamdError, TimeoutError, OSError) as error:
            await self._undo(made, fresh=fresh)
            if isinstance(error, RamdError):
                raise _undone(error, "create failed") from error
            raise Unavailable(
                f"create did not finish: {str(error) or f'not within {timeout_s:g} s'};"
                " everything that was made has been removed again"
            ) from error
        state = self._runtime().state
        assert state.reign is not None
        primary = state.reign.node_id
        replicas = tuple(m.node_id for m in state.members if m.node_id != primary)
        return CreateResult(
            cluster_id=state.cluster_id,
            cluster_name=state.cluster_name,
            primary_node=primary,
            replica_nodes=replicas,
        )

    async def _enter(
        self, made: formation.Made, plans: tuple[formation.NodePlan, ...], secret_file: Path
    ) -> None:
        """Form the group; given up at once when a daemon that was started for it has ended."""
        members = tuple(plan.member for plan in plans)
        entering = asyncio.ensure_future(self._host.enter(members, secret_file))
        try:
            while not entering.done():
                _require_alive(made, plans)
                await asyncio.wait({entering}, timeout=LOOK_S)
            entering.result()
        finally:
            entering.cancel()
            await asyncio.wait({entering})

    def _created(self, made: formation.Made, plans: tuple[formation.NodePlan, ...]) -> bool | None:
        """True once the primary accepts writes and every other node streams from it."""
        _require_alive(made, plans)
        return finished(self._host.picture) or None

    async def _undo(self, made: formation.Made, *, fresh: bool) -> None:
        """Leave nothing of a create that failed, and everything that was there before."""
        config = self._host.daemon.config
        runtime = self._host.runtime
        if runtime is not None:
            runtime.undo_at_end()
        await self._host.end()
        await asyncio.to_thread(made.undo)
        if fresh:
            await asyncio.to_thread(
                kill_server_of, config.postgresql_data_dir, timeout_s=formation.KILL_TIMEOUT_S
            )
            await asyncio.to_thread(shutil.rmtree, config.postgresql_data_dir, True)
        else:
            await asyncio.to_thread(give_back, config.postgresql_data_dir)
        clear_state(config.state_dir, remove=True)

    async def failover(self, request: FailoverRequest, *, timeout_s: float) -> FailoverResult:
        desk = switching.Desk(
            runtime=self._runtime(),
            picture=lambda: self._host.picture,
            until=self._until,
            now_ns=self.now_ns,
        )
        async with self._order("failover", request.actor, f"target {request.target or 'any'}"):
            return await switching.move_primary(desk, request, timeout_s=timeout_s)

    async def change_sync(self, change: SyncChange, *, timeout_s: float) -> SyncChanged:
        begun_ns = self.now_ns()
        await record_order(self._runtime().link, change)
        try:
            async with asyncio.timeout(timeout_s):
                await self._until(lambda: follows_settings(self._host.picture.state) or None)
        except TimeoutError:
            return SyncChanged(settled=False)
        self._finished("sync", begun_ns, self._host.picture.state.sync.goal.text())
        return SyncChanged(settled=True)

    async def destroy(self, request: DestroyRequest, *, timeout_s: float) -> DestroyResult:
        runtime = self._runtime()
        state = runtime.state
        if request.cluster_name and request.cluster_name != state.cluster_name:
            raise Refused(
                f"this cluster is {state.cluster_name}, not {request.cluster_name}",
                code="invalid_field",
                field="cluster_name",
            )
        if request.remove_data and not request.cluster_name:
            raise Refused(
                "deleting data needs the cluster's name",
                code="invalid_field",
                field="cluster_name",
                hint=f'send "cluster_name": "{state.cluster_name}" to delete, or leave'
                " remove_data out: then data directories are renamed aside",
            )
        begun_ns = self.now_ns()
        kept_before = self._kept_aside()
        removal = Removal(remove_data=request.remove_data, requested_by=request.actor)
        await self._propose(encode(Destroy(removal=removal)))
        silent: tuple[int, ...] = ()
        try:
            async with asyncio.timeout(timeout_s):
                silent = await self._until(lambda: self._destroyed(runtime))
        except TimeoutError:
            raise OutcomeUnknown(
                f"the cluster is marked as destroyed, but not every node had finished"
                f" within {timeout_s:g} s",
                hint="each daemon finishes by itself when it sees the record",
            ) from None
        self._finished("destroy", begun_ns, f"{len(silent)} nodes silent")
        stopped = tuple(m.node_id for m in state.members if m.node_id not in silent)
        return DestroyResult(
            cluster_name=state.cluster_name,
            nodes_stopped=stopped,
            nodes_silent=silent,
            kept_aside=tuple(sorted(self._kept_aside() - kept_before)),
        )

    def _kept_aside(self) -> set[str]:
        """This node's own data directories that were renamed aside."""
        data_dir = self._host.daemon.config.postgresql_data_dir
        return {str(path) for path in data_dir.parent.glob(f"{data_dir.name}.aside-*")}

    def _destroyed(self, runtime: Runtime) -> tuple[int, ...] | None:
        """Silent nodes, once every other has left the cluster and this daemon is without one."""
        if self._host.runtime is runtime:
            return None
        heard = {h.observation.node_id: h.observation for h in runtime.heard}
        me = self._host.daemon.config.node_id
        others = (m.node_id for m in runtime.state.members if m.node_id != me)
        return tuple(node for node in others if node not in heard or not left(heard[node]))

    def _desk(self) -> orders.Desk:
        runtime, config = self._runtime(), self._host.daemon.config
        secret_file = config.cluster_secret_file or config.state_dir / formation.SECRET_FILE
        return orders.Desk(
            config=config,
            consensus=runtime.link,
            view=runtime.view,
            until=self._until,
            unix_ms=self._host.unix_ms,
            secret=cluster_secret(secret_file),
            secret_file=secret_file,
        )

    # --- shared ------------------------------------------------------------------------------

    def _runtime(self) -> Runtime:
        runtime = self._host.runtime
        if runtime is None or not runtime.state.formed:
            raise Refused("this daemon is in no cluster", code="no_cluster")
        return runtime

    async def _propose(self, command: bytes) -> None:
        await self._runtime().link.propose(command, timeout_s=PROPOSE_TIMEOUT_S)

    async def _until(self, check: Callable[[], T | None]) -> T:
        """Look after every beat until `check` gives something; bounded by the caller's timeout."""
        while (found := check()) is None:
            self._host.changed.clear()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._host.changed.wait()
            except TimeoutError:
                continue
        return found

    def _finished(self, operation: str, begun_ns: int, outcome: str) -> None:
        duration_ms = (self.now_ns() - begun_ns) // NS_PER_MS
        events.emit(
            events.OperationFinished(operation=operation, outcome=outcome, duration_ms=duration_ms)
        )


def _require_alive(made: formation.Made, plans: tuple[formation.NodePlan, ...]) -> None:
    """Every daemon that create started still runs. Raises Unavailable with one's last words."""
    fallen = made.fallen()
    if fallen is not None:
        plan = plans[1:][fallen[0]]
        raise Unavailable(
            f"the daemon of {plan.member.name} ended with status {fallen[1]}:"
            f" {formation.last_lines(plan.log_file)}"
        )


def _holds_data(directory: Path) -> bool:
    return directory.exists() and any(directory.iterdir())


def _undone(error: RamdError, what: str) -> RamdError:
    """The same error, saying what was under way and that everything was undone."""
    return type(error)(
        f"{what}: {error.message}; everything that was made has been removed again",
        code=error.code,
        hint=error.hint,
        field=error.field,
    )


def finished(picture: Snapshot) -> bool:
    """A new cluster is what was asked for: everybody serves, and commits wait as they are to."""
    if not all_serve(picture) or picture.state.reign is None:
        return False
    primary = picture.of(picture.state.reign.node_id)
    return primary is not None and begun(picture.state, primary.observation)
