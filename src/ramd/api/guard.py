"""What every request passes before a route sees it: who asks, how much, how long; and the log line.

Lives here: one plain ASGI middleware. Must not live here: anything about clusters.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ramd.api.errors import of_bug, of_ramd_error
from ramd.api.limits import Auth, Limits
from ramd.domain.errors import RamdError, Refused

EXCESS_BYTES_MAX = 1024 * 1024

access = logging.getLogger("ramd.api.access")


class Guard:
    """ASGI middleware: authentication, bounded body, and the envelope for what nobody caught."""

    def __init__(self, app: ASGIApp, *, auth: Auth, limits: Limits, open_paths: Iterable[str]):
        self._app = app
        self._auth = auth
        self._limits = limits
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        watch = _Watch(send, body_left=_has_body(scope))
        began_ns = time.monotonic_ns()
        try:
            await self._pass(scope, watch.reading(receive), watch)
        except RamdError as error:
            await watch.answer(of_ramd_error(error), scope, receive)
        except Exception as error:  # boundary: a bug of one request ends with its answer
            response = of_bug(error, f"{scope['method']} {scope['path']}")
            await watch.answer(response, scope, receive)
        if access.isEnabledFor(logging.DEBUG):
            took_ms = (time.monotonic_ns() - began_ns) / 1e6
            access.debug(
                "%s %s %d %.1f ms from %s",
                scope["method"], scope["path"], watch.status, took_ms, client_of(scope),
            )  # fmt: skip

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in self._open_paths:
            self._authenticate(scope)
        body = await self._body(scope, receive)
        await self._app(scope, _replay(body, receive), send)

    def _authenticate(self, scope: Scope) -> None:
        if not self._auth.admits(_header(scope, b"authorization")):
            raise Refused(
                "a valid bearer token is required",
                code="unauthorized",
                hint="send the header 'Authorization: Bearer <http_auth_token of this daemon>'",
            )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body. Raises Refused `too_large`, or `bad_request` if it does not arrive."""
        limit = self._limits.body_bytes_max
        announced = _header(scope, b"content-length") or b"0"
        excess = announced.isdigit() and int(announced) > limit
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.request_timeout_s):
                # An excess is read a little further, and dropped: closing on unread data would
                # reset the connection before the client has seen the answer.
                while size <= limit + EXCESS_BYTES_MAX:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Refused("the client left before its request", code="bad_request")
                    size += len(message.get("body", b""))
                    excess = excess or size > limit
                    if not excess:
                        parts.append(message.get("body", b""))
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise Refused(
                f"the request body did not arrive within {self._limits.request_timeout_s:g} s",
                code="bad_request",
            ) from None
        if excess:
            raise Refused(
                f"the request body is larger than {limit} bytes",
                code="too_large",
                hint="http_max_request_size is the limit",
            )
        return b"".join(parts)


class _Watch:
    """`send` and `receive` of one request: what was answered, and whether its body is all read."""

    def __init__(self, send: Send, *, body_left: bool) -> None:
        self._send = send
        self._body_left = body_left
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    def reading(self, receive: Receive) -> Receive:
        """The same `receive`, watched."""

        async def watched() -> Message:
            message = await receive()
            if message["type"] != "http.request" or not message.get("more_body", False):
                self._body_left = False
            return message

        return watched

    async def answer(self, response: Response, scope: Scope, receive: Receive) -> None:
        """Answer now, unless an answer has begun: then the connection just ends early."""
        if self._body_left:  # what is left of the body is not worth reading
            response.headers["connection"] = "close"
        if self.status == 0:
            await response(scope, receive, self)


def client_of(scope: Scope) -> str:
    """The address that asks, for logs and records."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def _has_body(scope: Scope) -> bool:
    length = _header(scope, b"content-length")
    return length not in (None, b"0") or _header(scope, b"transfer-encoding") is not None


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read already, then what comes next."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
