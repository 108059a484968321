"""The part of a channel between simulated members by which daemons tell each other what they see.

Must not live here: messages of the consensus (`ha_group`). Start reading at `Casts.cast`.
"""

from __future__ import annotations

from collections.abc import Callable

from pgraft.core.types import NodeId
from tests.support.ha_group import GroupNode


class Casts:
    """The part of a channel that daemons tell each other by."""

    def __init__(self, node: GroupNode, channels: dict[int, Casts]) -> None:
        self._node = node
        self._channels = channels
        self._handlers: dict[str, Callable[[NodeId, bytes], None]] = {}
        channels[int(node.node)] = self

    def register_cast(self, method: str, handler: Callable[[NodeId, bytes], None]) -> None:
        self._handlers[method] = handler

    def cast(self, to: NodeId, method: str, payload: bytes) -> None:
        node, other = self._node, self._channels.get(int(to))
        if other is None or other._node.uuid in node.config.removed:
            return
        node.network.send(
            int(node.node),
            int(to),
            other._node.actor,
            lambda: other._handlers[method](node.node, payload),
        )
