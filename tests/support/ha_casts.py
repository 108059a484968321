"""The part of a channel between simulated members by which daemons tell and ask each other.

Must not live here: messages of the consensus (`ha_group`). Start reading at `Casts.cast`.
"""

from __future__ import annotations

from collections.abc import Callable

from pgraft.core.types import NodeId
from tests.support.ha_exchange import Calls
from tests.support.ha_group import GroupNode


class Casts:
    """What daemons tell each other by; `register` and `call` are what they ask each other by."""

    def __init__(self, node: GroupNode, channels: dict[int, Casts]) -> None:
        self._node = node
        self._channels = channels
        self.calls = Calls(node, self._calls_of)
        self.register, self.call = self.calls.register, self.calls.call
        self._handlers: dict[str, Callable[[NodeId, bytes], None]] = {}
        channels[int(node.node)] = self

    def _calls_of(self, node_id: int) -> Calls | None:
        other = self._other(node_id)
        return other.calls if other is not None else None

    def _other(self, node_id: int) -> Casts | None:
        """The channel of a node that this one still knows."""
        other = self._channels.get(node_id)
        return None if other is None or other._node.uuid in self._node.config.removed else other

    def register_cast(self, method: str, handler: Callable[[NodeId, bytes], None]) -> None:
        self._handlers[method] = handler

    def cast(self, to: NodeId, method: str, payload: bytes) -> None:
        node, other = self._node, self._other(int(to))
        if other is None:
            return
        node.network.send(
            int(node.node),
            int(to),
            other._node.actor,
            lambda: other._handlers[method](node.node, payload),
        )
