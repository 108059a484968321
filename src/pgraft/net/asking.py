"""Asking a member of a group to be admitted: one connection, one answer.

Lives here: the question over TCP. Must not live here: repeating it, storing what comes of it
(`pgraft.joining`). Start reading at `TcpAsker.ask`.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final, Protocol

from pgraft.core.types import NodeId
from pgraft.identity import Identity, JoinAnswer, JoinRequest
from pgraft.net.address import Address
from pgraft.net.connection import Connection
from pgraft.net.handshake import Dialer, check_secret
from pgraft.net.hello import NONCE_BYTES, Hello
from pgraft.net.judge import Presence, Roster
from pgraft.net.tls import Tls, TlsFiles
from pgraft.net.transport import Refusal
from pgraft.wire import Frame

ASK_TIMEOUT_S: Final = 4.0
_TRANSIENT: Final = frozenset({"not_formed", "timeout", "garbage", "unproven", "duplicate_node"})
"""Refusals that may be over when it asks again."""


class Asker(Protocol):
    """Carries the question of a blank member to a member of the group."""

    async def ask(self, identity: Identity, request: JoinRequest, seed: Address) -> JoinAnswer:
        """The answer; "pending" also when nobody could be reached, with the reason."""
        ...


class _Question:
    """What one connection brings: the answer, or why there is none."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[JoinAnswer] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()

    # pgraft.net.connection.ConnectionEvents

    def opened(self, connection: Connection, peer: Hello) -> None:
        answer = connection.answer()
        assert answer is not None
        self._settle(answer)
        connection.close()

    def frame(self, connection: Connection, frame: Frame) -> None:
        raise AssertionError("frames come only on accepted connections")

    def refused(self, refusal: Refusal) -> None:
        if refusal.code in _TRANSIENT:
            self._settle(JoinAnswer.pending(refusal.text))
        else:
            self._settle(JoinAnswer.refused(refusal.code, refusal.text))

    def closed(self, connection: Connection) -> None:
        self._settle(JoinAnswer.pending("the connection ended before the answer"))
        self.ended.set()

    def _settle(self, answer: JoinAnswer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


class TcpAsker:
    """`Asker` over TCP. Raises ValueError for too short a secret, TlsError for unusable files."""

    def __init__(self, secret: bytes, tls: TlsFiles | None = None) -> None:
        check_secret(secret)
        self._secret = secret
        self._tls = None if tls is None else Tls(tls)

    async def ask(self, identity: Identity, request: JoinRequest, seed: Address) -> JoinAnswer:
        """See Asker.ask; ends within `ASK_TIMEOUT_S`."""
        presence = Presence(identity=identity, roster=Roster.recorded(identity), join=request)
        nonce = secrets.token_bytes(NONCE_BYTES)
        side = Dialer(presence, self._secret, nonce=nonce, expected=NodeId(0))
        question = _Question()
        connection = Connection(side, identity.stage, question)
        tls = self._tls
        protocol = connection if tls is None else tls.layer(connection, accepting=False)
        loop = asyncio.get_running_loop()
        connected = False
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                await loop.create_connection(lambda: protocol, seed.host, seed.port)
                connected = True
                return await question.answer
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            why = str(error) or "no answer in time"
            return JoinAnswer.pending(f"{seed.host}:{seed.port} cannot be reached: {why}")
        finally:
            if connected:
                connection.close()
                await question.ended.wait()  # bounded: an aborted connection ends in the next turn
