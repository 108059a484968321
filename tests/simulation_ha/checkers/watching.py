"""The words in which the parts of a simulated cluster tell the checkers what happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation_ha.checkers.base import (
    Jammed,
    Promoted,
    Published,
    Received,
    Removed,
    Started,
    Watch,
)

if TYPE_CHECKING:
    from tests.support.ha_host import Host
    from tests.support.ha_wal import Directory


class Watching:
    """One method per event."""

    def __init__(self, watch: Watch) -> None:
        self.emit = watch.emit

    def started(self, host: Host, *, primary: bool) -> None:
        self.emit(Started(host, primary))

    def promoted(self, host: Host) -> None:
        self.emit(Promoted(host))

    def published(self, host: Host) -> None:
        self.emit(Published(host))

    def received(self, host: Host, disk: Directory) -> None:
        self.emit(Received(host, disk))

    def jammed(self, host: Host, source: Host) -> None:
        self.emit(Jammed(host, source))

    def removed(self, host: Host) -> None:
        self.emit(Removed(host))
