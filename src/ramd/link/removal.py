"""How a member learns that it is none any more, and whether its peers found that it regressed.

Its own log may say so; a member that was cut off when it was removed is told by its peers, in a
refusal that they have proven. Start reading at `RemovalWatch.known`.
"""

from __future__ import annotations

from collections.abc import Callable

from pgraft.core.types import Config
from pgraft.net.transport import Refusal
from ramd import events, member_events


class RemovalWatch:
    """`woken` is called when a peer has said something that matters."""

    def __init__(self, uuid: str, woken: Callable[[], None]) -> None:
        self._uuid = uuid
        self._woken = woken
        self._told = ""
        self._regressed = False

    def on_refused(self, refusal: Refusal) -> None:
        """A connection was refused; only what a peer has proven counts (`Refusal`)."""
        if not refusal.by_peer:
            return
        if refusal.code == "removed" and not self._told:
            self._told = f"node {refusal.node} says so"
            self._woken()
        if refusal.code == "regressed" and not self._regressed:
            self._regressed = True
            events.emit(member_events.NodeRegressed(peer=int(refusal.node), what=refusal.text))

    def known(self, committed: Config) -> str:
        """How it is known that this member was removed; '' if it was not."""
        if any(peer.uuid == self._uuid for peer in committed.peers):
            return self._told
        return "its own log says so" if self._uuid in committed.removed else self._told
