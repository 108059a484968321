"""Where a member listens: host and port, and their text. No sockets.

Start reading at `Address`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgraft.core.types import NodeId
from pgraft.identity import Founder


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a peer listens. The host may be a name: it is resolved again at each connection."""

    host: str
    port: int


def parse_address(text: str) -> Address:
    """`host:port`, with `[…]` around an IPv6 host. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"'{text}' is not host:port")
    return Address(host=host.removeprefix("[").removesuffix("]"), port=int(port))


def addresses(founders: tuple[Founder, ...], myself: NodeId) -> dict[NodeId, Address]:
    """The addresses of all members but this one. Raises ValueError."""
    return {f.node: parse_address(f.address) for f in founders if f.node != myself}
