"""A client that shows every message a server sends, and knows nothing of what they mean.

A driver hides whether an acknowledgement came just before the connection ended. Start reading at
`RawClient`.
"""

from __future__ import annotations

import select
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ramd.postgres.site import Site

PROTOCOL = 3 << 16
ANSWER_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of the server: its type letter and what follows the length."""

    kind: str
    body: bytes

    @property
    def text(self) -> str:
        """Of a command tag: without the zero at its end."""
        return self.body.rstrip(b"\0").decode(errors="replace")


class RawClient:
    """One session by the server's private socket; nobody is asked for a password there."""

    def __init__(self, site: Site, *, database: str = "postgres", **options: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_S)
        self._socket.connect(str(site.socket_file))
        self._buffer = b""
        fields = {"user": site.options.superuser, "database": database, **options}
        body = b"".join(part.encode() + b"\0" for item in fields.items() for part in item) + b"\0"
        self._socket.sendall(struct.pack("!II", len(body) + 8, PROTOCOL) + body)
        assert self.until_ready()[-1].kind == "Z"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._socket.close()

    def send(self, kind: str, body: bytes = b"") -> None:
        """One message to the server."""
        self._socket.sendall(kind.encode() + struct.pack("!I", len(body) + 4) + body)

    def query(self, sql: str) -> None:
        """A simple query; does not wait."""
        self.send("Q", sql.encode() + b"\0")

    def pipeline(self, *statements: str) -> None:
        """Extended queries with one Sync behind all of them; does not wait."""
        for sql in statements:
            self.send("P", b"\0" + sql.encode() + b"\0" + struct.pack("!H", 0))
            self.send("B", b"\0\0" + struct.pack("!HHH", 0, 0, 0))
            self.send("E", b"\0" + struct.pack("!I", 0))
        self.send("S")

    def next_message(self) -> Message | None:
        """None when the server has closed the connection."""
        while len(self._buffer) < 5 or len(self._buffer) < 1 + self._length():
            try:
                more = self._socket.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                return None
            self._buffer += more
        end = 1 + self._length()
        message = Message(kind=chr(self._buffer[0]), body=self._buffer[5:end])
        self._buffer = self._buffer[end:]
        return message

    def until_ready(self) -> list[Message]:
        """Everything up to ReadyForQuery, or up to the end of the connection."""
        found: list[Message] = []
        while not found or found[-1].kind != "Z":
            message = self.next_message()
            if message is None:
                break
            found.append(message)
        return found

    def answers(self, wait_s: float = 0.02) -> bool:
        """Whether something has come, or comes within this time."""
        return bool(self._buffer or select.select([self._socket], [], [], wait_s)[0])

    def _length(self) -> int:
        return int(struct.unpack("!I", self._buffer[1:5])[0])
