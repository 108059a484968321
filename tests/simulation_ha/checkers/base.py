"""What happens in a simulated cluster, as values, and who listens to it.

Lives here: the events, `Checker`, `Watch`. Must not live here: what a rule means (one file each).
Start reading at `Checker`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ramd.domain.model import ClusterState
from ramd.state.commands import GrantPayload
from tests.support.ha_wal import Directory, Record

if TYPE_CHECKING:
    from tests.support.ha_host import Host
    from tests.support.ha_process import Postmaster


class Broken(AssertionError):
    """A rule that must always hold was seen broken."""


class Started(NamedTuple):
    """A server was started by its daemon; `primary`: able to write."""

    host: Host
    primary: bool


class Promoted(NamedTuple):
    """A server has become primary, on a timeline of its own."""

    host: Host


class Published(NamedTuple):
    """A daemon has told its server until when it may acknowledge."""

    host: Host


class Acked(NamedTuple):
    """A client was told that its write is committed."""

    host: Host
    server: Postmaster
    record: Record


class Received(NamedTuple):
    """A replica has written WAL from its upstream."""

    host: Host
    disk: Directory


class Jammed(NamedTuple):
    """A replica asks for WAL that is not the continuation of its own, and nobody notices."""

    host: Host
    source: Host


class Removed(NamedTuple):
    """A data directory was deleted."""

    host: Host


class Granted(NamedTuple):
    """A grant was applied for the first time anywhere; `before` is the state that it changed."""

    before: ClusterState
    holder: int
    epoch: int
    payload: GrantPayload


Handler: TypeAlias = Callable[[Any], None]


class Checker:
    """Listens to some events and raises Broken; `hosts` is the whole truth, if it asks."""

    def __init__(self, hosts: Mapping[int, Host]) -> None:
        self.hosts = hosts

    def handlers(self) -> Mapping[type, Handler]:
        raise NotImplementedError


class Watch:
    """Hands each event to those that listen. `fail` is told the first rule that broke."""

    def __init__(self, checkers: Iterable[Checker], fail: Callable[[Broken], None]) -> None:
        self._handlers: dict[type, list[Handler]] = {}
        self._fail = fail
        for checker in checkers:
            for kind, handler in checker.handlers().items():
                self._handlers.setdefault(kind, []).append(handler)

    def emit(self, event: tuple[Any, ...]) -> None:
        for handler in self._handlers.get(type(event), ()):
            try:
                handler(event)
            except Broken as broken:
                self._fail(broken)
