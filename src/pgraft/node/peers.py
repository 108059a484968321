"""Whom the transport connects: the members, and for a moment those that have just left.

Lives here: what is told to `Transport.set_peers`, and when. Must not live here: who is a member
(`pgraft.core`), connections (`pgraft.net`). Start reading at `Peers.tell`.

A configuration is in effect once it is appended, but those it leaves out still count until it is
committed: a leader that removes itself needs the acknowledgements of the others for just that. And
once it is committed they should hear so, and what they asked for should be answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from pgraft.core.types import Config, NodeId, PeerRecord
from pgraft.net.transport import Transport

GRACE_S: Final = 1.0
"""How long one that was removed stays connected."""


class Peers:
    """The transport's list of peers, kept in step with the configurations."""

    def __init__(self, transport: Transport, configs: Callable[[], tuple[Config, Config]]) -> None:
        """`configs` gives the one in effect and the committed one, at any time."""
        self._transport = transport
        self._configs = configs
        self._told: dict[NodeId, PeerRecord] = {}
        self._leaving: dict[NodeId, PeerRecord] = {}
        self._handle: asyncio.TimerHandle | None = None

    def tell(self) -> None:
        """Something about the configurations may have changed."""
        effective, committed = self._configs()
        if not effective.peers:
            return  # nothing is known of the members but their ids: tests of bare groups
        wanted = {peer.node: peer for peer in (*committed.peers, *effective.peers)}
        gone = {n: peer for n, peer in self._told.items() if wanted.get(n) != peer}
        self._told = wanted
        if gone:
            self._leaving.update(gone)
            self.stop()
            self._handle = asyncio.get_running_loop().call_later(GRACE_S, self._part)
        self._set(committed)

    def stop(self) -> None:
        """Part with nobody any more."""
        if self._handle is not None:
            self._handle.cancel()

    def _part(self) -> None:
        self._leaving = {}
        self._set(self._configs()[1])

    def _set(self, committed: Config) -> None:
        peers = tuple({**self._leaving, **self._told}.values())
        present = {peer.uuid for peer in peers}
        removed = tuple(uuid for uuid in committed.removed if uuid not in present)
        self._transport.set_peers(peers, removed)
