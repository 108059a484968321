"""The primary lease as the host touches it: both halves, each call followed by what it causes.

Lives here: thin handles over the core's `Holder` and `Granter`, which supply the clock and see to
it that messages leave. Must not live here: any rule of the lease (`pgraft.core.lease`).
"""

from __future__ import annotations

from pgraft.core.types import Nanos
from pgraft.node.driver import Driver


class HolderHandle:
    """The holder's half on this node."""

    __slots__ = ("_driver",)

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @property
    def epoch(self) -> int:
        """The epoch this node holds by the last applied grant, 0 if it holds none."""
        return self._driver.raft.holder.epoch

    @property
    def deadline_ns(self) -> Nanos:
        """Until when the lease stands, CLOCK_BOOTTIME of this node; 0 if it does not."""
        return self._driver.raft.holder.deadline_ns

    @property
    def released_epoch(self) -> int:
        """No answer for this epoch or an older one is ever used."""
        return self._driver.raft.holder.released_epoch

    def renew(self) -> bool:
        """Ask for one more ttl, counted from now. False if there is no epoch or nobody to ask."""
        driver = self._driver
        asked = driver.raft.holder.renew(driver.clock())
        driver.wake()
        return asked

    def release(self, evidence: bytes) -> bool:
        """Give the epoch back for good. False if this node holds none.

        The host has fenced its server and stored `released_epoch` durably *before* this call.
        """
        driver = self._driver
        released = driver.raft.holder.release(evidence, driver.clock())
        driver.wake()
        return released


class GranterHandle:
    """The coordinator's half on this node; of meaning only while it leads."""

    __slots__ = ("_driver",)

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def seal(self, epoch: int) -> None:
        """Answer no renewal of this epoch from now on."""
        self._driver.raft.granter.seal(epoch)

    def unseal(self) -> None:
        """Answer renewals again."""
        self._driver.raft.granter.unseal()

    def released(self, epoch: int) -> bytes | None:
        """The evidence with which the holder gave `epoch` back, None if it did not."""
        return self._driver.raft.granter.released(epoch)

    def may_move_at(self) -> Nanos | None:
        """From when on the next epoch may be granted; a time not in the future means now.

        None: this node cannot tell (it does not lead, or was just elected or paused).
        """
        driver = self._driver
        return driver.raft.granter.may_move_at(driver.clock())
