"""The client of each group, with one interface: puts one by one, many under way, or at anybody.

Lives here: a pgraft and an etcd client over TLS with a certificate. Must not live here: processes,
what is measured. Start reading at `Client`.
"""

from __future__ import annotations

import contextlib
import json
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias

from bench.consensus.setup import Files, package
from bench.consensus.wire import (
    Frames,
    Kind,
    Request,
    Standing,
    etcd_standing,
    local_range_request,
    put_request,
)

ANSWER_S: Final = 10.0
TRY_S: Final = 1.0
"""How long a try at a member that may be dead or cut off is kept open."""
KEY: Final = b"bench"
_READ_BYTES: Final = 1 << 16


Commits: TypeAlias = queue.SimpleQueue[float]
"""When puts were committed (perf_counter), from whatever thread learned it."""


class ClientError(Exception):
    """A member did not answer, or answered that it failed."""


class Client(Protocol):
    """A connection to one member, used by one thread."""

    def put(self, value: bytes) -> None:
        """Return once it is committed. Raises ClientError."""
        ...

    def window(self, value: bytes, count: int, in_flight: int) -> list[float]:
        """Commit it `count` times, so many under way at once; seconds of each. ClientError."""
        ...

    def hop(self) -> None:
        """To the member and back, nothing agreed and nothing written. Raises ClientError."""
        ...

    def standing(self) -> Standing:
        """What the member says of its group. Raises ClientError."""
        ...

    def submit(self, value: bytes, commits: Commits) -> None:
        """Begin a put; `committed` tells. Never raises: a dead member simply answers nothing."""
        ...

    def pump(self, clients: Sequence[Any], commits: Commits, within_s: float) -> None:
        """Hear what became of what was submitted to `clients`: until a commit, or so long."""
        ...

    def close(self) -> None:
        """Forget everything under way."""
        ...


def hunt(clients: Sequence[Client], value: bytes, *, every_s: float, max_s: float) -> float:
    """Try members in turn, one more each `every_s`; the moment (perf_counter) of the first commit.

    A try does not wait for the one before. The clients are new ones, so nothing older is under
    way. Raises ClientError after `max_s`.
    """
    until = time.perf_counter() + max_s
    commits: Commits = queue.SimpleQueue()
    turn = 0
    while time.perf_counter() < until:
        clients[turn % len(clients)].submit(value, commits)
        turn += 1
        clients[0].pump(clients, commits, every_s)
        if not commits.empty():
            return commits.get()
    raise ClientError(f"nothing was committed in {max_s:g} s")


class PgraftClient:
    """Speaks to the client port of `bench.consensus.member`."""

    def __init__(self, port: int, files: Files) -> None:
        context = ssl.create_default_context(cafile=str(files.ca))
        context.load_cert_chain(str(files.cert), str(files.key))
        try:
            plain = socket.create_connection(("127.0.0.1", port), ANSWER_S)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = context.wrap_socket(plain, server_hostname="127.0.0.1")
        except OSError as error:
            raise ClientError(f"port {port}: {error}") from error
        self._frames = Frames()
        self._ready: list[Request] = []
        self._next = 0
        self._dead = False

    def put(self, value: bytes) -> None:
        self._call(Kind.PUT, value)

    def hop(self) -> None:
        self._call(Kind.HOP, b"")

    def standing(self) -> Standing:
        return Standing(**json.loads(self._call(Kind.STATUS, b"")))

    def window(self, value: bytes, count: int, in_flight: int) -> list[float]:
        begun: dict[int, float] = {}
        took: list[float] = []
        left = count
        while len(took) < count:  # bounded: each turn takes an answer or raises
            while left and len(begun) < in_flight:
                now = time.perf_counter()
                begun[self._send(Kind.PUT, value)] = now
                left -= 1
            answer = self._receive()
            took.append(time.perf_counter() - begun.pop(answer.id))
            if answer.kind is not Kind.DONE:
                raise ClientError(answer.payload.decode())
        return took

    def submit(self, value: bytes, commits: Commits) -> None:
        if self._dead:
            return
        try:
            self._send(Kind.PUT, value)
        except ClientError:
            self._dead = True

    def pump(self, clients: Sequence[PgraftClient], commits: Commits, within_s: float) -> None:
        until = time.perf_counter() + within_s
        while (left_s := until - time.perf_counter()) > 0 and commits.empty():
            alive = {client._socket: client for client in clients if not client._dead}
            for ready in select.select(list(alive), [], [], left_s)[0]:
                if any(answer.kind is Kind.DONE for answer in alive[ready]._read_now()):
                    commits.put(time.perf_counter())

    def close(self) -> None:
        self._socket.close()

    def _call(self, kind: Kind, payload: bytes) -> bytes:
        number = self._send(kind, payload)
        answer = self._receive()
        if answer.id != number or answer.kind is not Kind.DONE:
            raise ClientError(answer.payload.decode() or "an answer to another request")
        return answer.payload

    def _send(self, kind: Kind, payload: bytes) -> int:
        self._next += 1
        try:
            self._socket.sendall(Request(self._next, kind, payload).encode())
        except OSError as error:
            raise ClientError(str(error)) from error
        return self._next

    def _receive(self) -> Request:
        try:
            while not self._ready:  # bounded by the timeout of the socket
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    raise ClientError("the member has closed the connection")
                self._ready += self._frames.feed(data)
        except OSError as error:
            raise ClientError(str(error)) from error
        return self._ready.pop(0)

    def _read_now(self) -> list[Request]:
        """What can be read without waiting."""
        answers: list[Request] = []
        self._socket.setblocking(False)
        try:
            while data := self._socket.recv(_READ_BYTES):
                answers += self._frames.feed(data)
            self._dead = True
        except ssl.SSLWantReadError:
            pass
        except OSError:
            self._dead = True
        self._socket.settimeout(ANSWER_S)
        return answers


class EtcdClient:
    """Speaks gRPC to one etcd member."""

    def __init__(self, port: int, files: Files) -> None:
        self._grpc = package("grpc")
        credentials = self._grpc.ssl_channel_credentials(
            root_certificates=files.ca.read_bytes(),
            private_key=files.key.read_bytes(),
            certificate_chain=files.cert.read_bytes(),
        )
        # A pool of connections would be shared with earlier clients of a member that was killed.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        self._channel = self._grpc.secure_channel(f"127.0.0.1:{port}", credentials, options)
        self._put = self._method("KV/Put")
        self._range = self._method("KV/Range")
        self._status = self._method("Maintenance/Status")
        try:
            self._grpc.channel_ready_future(self._channel).result(timeout=ANSWER_S)
        except self._grpc.FutureTimeoutError as error:
            self._channel.close()
            raise ClientError(f"port {port}: no connection") from error

    def put(self, value: bytes) -> None:
        self._call(self._put, put_request(KEY, value))

    def hop(self) -> None:
        self._call(self._range, local_range_request(b"nothing"))

    def standing(self) -> Standing:
        return etcd_standing(self._call(self._status, b""))

    def window(self, value: bytes, count: int, in_flight: int) -> list[float]:
        slots = threading.Semaphore(in_flight)
        took: list[float] = []
        failed: list[str] = []
        request = put_request(KEY, value)

        def done(call: Any, begun: float) -> None:
            took.append(time.perf_counter() - begun)
            if call.code() is not self._grpc.StatusCode.OK:
                failed.append(str(call.details()))
            slots.release()

        for _ in range(count):
            slots.acquire()
            begun = time.perf_counter()
            call = self._put.future(request, timeout=ANSWER_S)
            call.add_done_callback(lambda call, begun=begun: done(call, begun))
        for _ in range(in_flight):
            slots.acquire()
        if failed:
            raise ClientError(failed[0])
        return took

    def submit(self, value: bytes, commits: Commits) -> None:
        call = self._put.future(put_request(KEY, value), timeout=TRY_S)
        ok = self._grpc.StatusCode.OK
        call.add_done_callback(
            lambda call: commits.put(time.perf_counter()) if call.code() is ok else None
        )

    def pump(self, clients: Sequence[EtcdClient], commits: Commits, within_s: float) -> None:
        with contextlib.suppress(queue.Empty):
            commits.put(commits.get(timeout=within_s))

    def close(self) -> None:
        self._channel.close()

    def _method(self, name: str) -> Any:
        return self._channel.unary_unary(f"/etcdserverpb.{name}")

    def _call(self, method: Any, request: bytes) -> bytes:
        try:
            answer: bytes = method(request, timeout=ANSWER_S)
        except self._grpc.RpcError as error:
            raise ClientError(str(error.details())) from error
        return answer
