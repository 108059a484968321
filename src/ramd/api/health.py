"""Health checks for load balancers and probes: GET, HEAD and OPTIONS, answered from memory.

Lives here: the raw routes and the predicates behind them, compatible in path and status with what
HAProxy and Kubernetes set-ups of this field use. No authentication, no envelope. Must not live
here: anything that waits, or asks PostgreSQL. A primary answers 503 by its own clock from the
moment its lease has ended, whatever the group knows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ramd.api.picture import NodePicture, look
from ramd.domain.observation import ServerRole, ServerState
from ramd.domain.service import Service, Snapshot, Stage

UNITS = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
LAG_DIGITS_MAX = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Me:
    """This daemon's own node, as its health checks see it. `node` is None without a cluster."""

    snapshot: Snapshot
    now_ns: int
    node: NodePicture | None

    @property
    def lease_left_ms(self) -> int:
        """0 unless this node is the agreed primary and its lease still runs by its own clock."""
        reign = self.snapshot.state.reign
        if reign is None or reign.node_id != self.snapshot.daemon.node_id:
            return 0
        return self.snapshot.lease_left_ms(self.now_ns)

    @property
    def up(self) -> bool:
        node = self.node
        return (
            node is not None
            and node.fresh
            and node.state is ServerState.RUNNING
            and node.observation is not None
            and node.observation.accepting
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the query string asks of a replica."""

    lag_bytes_max: int | None = None
    streaming: bool = False


Check = Callable[[Me, Wanted], str]
"""'' for 200, else the reason for 503."""


def is_primary(me: Me, _: Wanted) -> str:
    if me.node is None or not me.up:
        return _down(me)
    if me.node.role is not ServerRole.PRIMARY:
        return "this server is a replica"
    return "" if me.lease_left_ms > 0 else "no lease: this server may not accept writes"


def is_leader(me: Me, _: Wanted) -> str:
    return "" if me.lease_left_ms > 0 else "this node holds no lease"


def is_replica(me: Me, wanted: Wanted) -> str:
    node = me.node
    if node is None or node.observation is None or not me.up:
        return _down(me)
    if node.role is not ServerRole.REPLICA:
        return "this server is the primary"
    if wanted.streaming and node.observation.upstream is None:
        return "this replica does not stream"
    if wanted.lag_bytes_max is None:
        return ""
    if node.lag_bytes is None:
        return "the lag is not known"
    if node.lag_bytes > wanted.lag_bytes_max:
        return f"lag {node.lag_bytes} bytes"
    return ""


def is_readable(me: Me, wanted: Wanted) -> str:
    return "" if not is_primary(me, wanted) else is_replica(me, wanted)


def is_up(me: Me, _: Wanted) -> str:
    return "" if me.up else _down(me)


def is_alive(me: Me, _: Wanted) -> str:
    """The control loop has turned within a lease; twice that without one of its own to keep.

    Without a cluster no beat is due: a daemon that answers is alive, however long it waits.
    """
    if me.snapshot.daemon.stage is not Stage.FORMED:
        return ""
    age_ms = max(0, me.now_ns - me.snapshot.taken_ns) // 1_000_000
    holder = me.snapshot.lease_deadline_ns != 0
    allowed_ms = me.snapshot.daemon.lease_ttl_ms * (1 if holder else 2)
    return "" if age_ms <= allowed_ms else f"the control loop has not turned for {age_ms} ms"


def is_ready(me: Me, wanted: Wanted) -> str:
    if not is_primary(me, wanted):
        return ""
    return is_replica(me, Wanted(lag_bytes_max=wanted.lag_bytes_max, streaming=True))


CHECKS: dict[str, Check] = {
    "/": is_primary,
    "/primary": is_primary,
    "/read-write": is_primary,
    "/leader": is_leader,
    "/replica": is_replica,
    "/read-only": is_readable,
    "/health": is_up,
    "/liveness": is_alive,
    "/readiness": is_ready,
}


def health_routes(service: Service) -> list[BaseRoute]:
    """One raw route for each of CHECKS."""

    def endpoint(check: Check) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            return _answer(service, check, request)

        return answer

    return [
        Route(path, _awaitable(endpoint(check)), methods=["GET", "HEAD", "OPTIONS"])
        for path, check in CHECKS.items()
    ]


def _awaitable(endpoint: Callable[[Request], Response]) -> Callable[..., object]:
    """As a coroutine function, which Starlette runs on the loop instead of in a thread pool."""

    async def answer(request: Request) -> Response:
        return endpoint(request)

    return answer


def _answer(service: Service, check: Check, request: Request) -> Response:
    try:
        wanted = _wanted(request)
    except ValueError as error:
        return _respond(400, {"reason": str(error)})
    me = look_at_self(service.snapshot(), service.now_ns())
    reason = check(me, wanted)
    return _respond(503 if reason else 200, _body(me, reason))


def look_at_self(snapshot: Snapshot, now_ns: int) -> Me:
    """The own node's part of the picture."""
    node = look(snapshot, now_ns).node(snapshot.daemon.node_id)
    return Me(snapshot=snapshot, now_ns=now_ns, node=node)


def _respond(status: int, body: dict[str, object]) -> Response:
    return Response(
        json.dumps(body, separators=(",", ":")).encode() + b"\n",
        status_code=status,
        media_type="application/json",
        headers={"cache-control": "no-store"},
    )


def _body(me: Me, reason: str) -> dict[str, object]:
    node, reign = me.node, me.snapshot.state.reign
    return {
        "state": str(node.state) if node is not None else "unknown",
        "role": str(node.role) if node is not None else None,
        "epoch": me.snapshot.state.epoch,
        "timeline": reign.timeline if reign is not None else None,
        "lag_bytes": node.lag_bytes if node is not None else None,
        "lease_left_ms": me.lease_left_ms,
        "reason": reason,
    }


def _down(me: Me) -> str:
    if me.node is None:
        return "this daemon is in no cluster"
    return me.node.trouble or f"server {me.node.state}"


def _wanted(request: Request) -> Wanted:
    lag = request.query_params.get("lag")
    state = request.query_params.get("replication_state")
    if state not in (None, "streaming"):
        raise ValueError(f"replication_state={state!r}: only 'streaming' is known")
    return Wanted(
        lag_bytes_max=None if lag is None else parse_size(lag), streaming=state is not None
    )


def parse_size(text: str) -> int:
    """Bytes of `16MB`, `100kB`, `1048576`; binary multiples. Raises ValueError."""
    digits = text.strip().rstrip("bBkKmMgGtT")
    unit = text.strip()[len(digits) :].lower()
    unit = unit if not unit or unit.endswith("b") else unit + "b"
    plain = digits.strip()
    if not plain.isascii() or not plain.isdecimal() or len(plain) > LAG_DIGITS_MAX:
        raise ValueError(f"lag={text!r}: expected a size such as 16MB")
    if unit not in UNITS:
        raise ValueError(f"lag={text!r}: unknown unit, expected kB, MB, GB or TB")
    return int(plain) * UNITS[unit]
