"""A fake service, a control loop in a thread, and a client: what the API's tests run on."""

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ramd.api.limits import Auth, Limits
from ramd.api.serve import ApiServer
from ramd.domain.quorum import RecoverRequest, RecoverResult
from ramd.domain.service import (
    AddNodeRequest,
    AddNodeResult,
    AddVoterRequest,
    AddVoterResult,
    CreateRequest,
    CreateResult,
    DestroyRequest,
    DestroyResult,
    FailoverRequest,
    FailoverResult,
    ReinitRequest,
    ReinitResult,
    RemoveNodeRequest,
    RemoveNodeResult,
    Snapshot,
    SyncChange,
    SyncChanged,
)
from tests.api import stories
from tests.support.ports import free_port


@dataclass
class FakeService:
    """Answers from `story`; records what it was asked; a write fails with `fails` or waits."""

    story: Snapshot = field(default_factory=stories.healthy)
    now: int = stories.NOW_NS
    fails: BaseException | None = None
    hold: asyncio.Event | None = None
    """A write waits for it when there is one."""
    begun: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    asked: list[object] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def now_ns(self) -> int:
        return self.now

    def snapshot(self) -> Snapshot:
        return self.story

    async def create(self, request: CreateRequest, *, timeout_s: float) -> CreateResult:
        await self._serve(request)
        self.story = stories.healthy()
        return CreateResult(
            cluster_id="c0ffee",
            cluster_name="demo",
            primary_node=1,
            replica_nodes=tuple(range(2, request.num_nodes + 1)),
        )

    async def destroy(self, request: DestroyRequest, *, timeout_s: float) -> DestroyResult:
        await self._serve(request)
        return DestroyResult(
            cluster_name="demo",
            nodes_stopped=(1, 2),
            nodes_silent=(3,),
            kept_aside=("/data/node1.aside",),
        )

    async def failover(self, request: FailoverRequest, *, timeout_s: float) -> FailoverResult:
        await self._serve(request)
        return FailoverResult(
            old_primary=1, new_primary=request.target or 2, failover_time_ms=412, epoch=2
        )

    async def change_sync(self, change: SyncChange, *, timeout_s: float) -> SyncChanged:
        await self._serve(change)
        return SyncChanged(settled=True)

    async def add_node(self, request: AddNodeRequest, *, timeout_s: float) -> AddNodeResult:
        await self._serve(request)
        node_id = request.node_id or 4
        member = replace(
            stories.member(node_id),
            name=request.name or f"node{node_id}",
            priority=request.priority,
        )
        return AddNodeResult(
            member=member,
            token="ramd1.the.token",
            expires_unix_ms=1_700_000_000_000,
            conf=("cluster_name = demo", f"join_token_file = /etc/ramd/node{node_id}.join_token"),
            replaces=request.replaces,
        )

    async def remove_node(
        self, request: RemoveNodeRequest, *, timeout_s: float
    ) -> RemoveNodeResult:
        await self._serve(request)
        known = self.story.state.member(request.node_id) is not None
        return RemoveNodeResult(
            node_id=request.node_id, name=f"node{request.node_id}", withdrawn=not known
        )

    async def add_voter(self, request: AddVoterRequest, *, timeout_s: float) -> AddVoterResult:
        await self._serve(request)
        return AddVoterResult(node_id=request.node_id, voters=(1, 2, 3))

    async def reinit(self, request: ReinitRequest, *, timeout_s: float) -> ReinitResult:
        await self._serve(request)
        done = self.story.state.reinit(request.node_id) is None
        return ReinitResult(
            node_id=request.node_id,
            name=f"node{request.node_id}",
            done=done,
            activity="" if done else "cloning from node 1",
        )

    async def recover_quorum(self, request: RecoverRequest, *, timeout_s: float) -> RecoverResult:
        await self._serve(request)
        return stories.recovery(done=request.apply)

    async def _serve(self, request: object) -> None:
        self.asked.append(request)
        self.threads.add(threading.current_thread().name)
        self.begun.set()
        if self.hold is not None:
            await self.hold.wait()
        self.ended.set()
        if self.fails is not None:
            raise self.fails


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One HTTP answer. `body` is parsed JSON, or None."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def data(self) -> Any:
        return self.body["data"]


@contextmanager
def control_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A running event loop in a thread named `control`, closed at the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="control", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        if not loop.is_closed():  # a test may have done it
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.run_until_complete(_end_all(loop))
            loop.close()


async def _end_all(loop: asyncio.AbstractEventLoop) -> None:
    left = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@dataclass(frozen=True, kw_only=True)
class Api:
    """A served fake, and how to ask it."""

    service: FakeService
    server: ApiServer
    loop: asyncio.AbstractEventLoop

    @property
    def port(self) -> int:
        return self.server.port

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: dict[str, str] | None = None,
        raw: bytes | None = None,
        timeout_s: float = 30,
    ) -> Answer:
        """One request on its own connection. `body` is sent as JSON, `raw` as it is."""
        wanted = dict(headers or {})
        data = raw
        if body is not None:
            data = json.dumps(body).encode()
            wanted.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body=data, headers=wanted)
            response = connection.getresponse()
            text = response.read()
            names = {name.lower(): value for name, value in response.getheaders()}
            parsed = json.loads(text) if text else None
            return Answer(status=response.status, headers=names, body=parsed)
        finally:
            connection.close()

    def get(self, path: str, **more: Any) -> Answer:
        return self.ask("GET", f"/api/v1{path}", **more)

    def post(self, path: str, body: object = None, **more: Any) -> Answer:
        return self.ask("POST", f"/api/v1{path}", body, **more)

    def hold_writes(self) -> Callable[[], None]:
        """From now on writes wait; the returned function lets them go."""
        gate = asyncio.Event()
        self.service.hold = gate

        def release() -> None:
            self.loop.call_soon_threadsafe(gate.set)

        return release


@contextmanager
def serving(
    service: FakeService | None = None,
    *,
    token: str | None = None,
    limits: Limits | None = None,
    port: int | None = None,
) -> Iterator[Api]:
    """The API over a fake service on a free port, in its real thread."""
    service = service or FakeService()
    with control_loop() as loop:
        server = ApiServer(
            service,
            control_loop=loop,
            bind="127.0.0.1",
            port=port or free_port(),
            auth=Auth(token=token),
            limits=limits,
        )
        server.start()
        try:
            yield Api(service=service, server=server, loop=loop)
        finally:
            server.stop()
