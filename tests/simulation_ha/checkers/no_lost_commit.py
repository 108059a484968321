"""Rule S4: an acknowledged commit is lost only where the decision said that it may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ramd.domain.model import StartMode
from ramd.domain.sync import NO_SET
from tests.simulation_ha.checkers.base import (
    Acked,
    Broken,
    Checker,
    Granted,
    Handler,
    Promoted,
    Published,
)
from tests.support.ha_wal import Record

if TYPE_CHECKING:
    from tests.support.ha_host import Host

BYTES = re.compile(r"loses (\d+) bytes$")
ANY = 1 << 62


class NoLostCommit(Checker):
    """Every acknowledged write is looked for on each server that becomes primary."""

    def __init__(self, hosts: Mapping[int, Host]) -> None:
        super().__init__(hosts)
        self.acked: dict[int, Record] = {}
        self._granted_epoch = 0
        self._resumes = 0
        """Epoch in which the very server of the one before is to go on; 0: none, or it did."""
        self._allowed: list[tuple[int, str]] = []
        """Up to which LSN writes may be lost (0: none) and the decision, of each grant since the
        last that ended in a promotion."""

    def handlers(self) -> Mapping[type, Handler]:
        return {
            Acked: self._acked,
            Granted: self._granted,
            Promoted: self._promoted,
            Published: self._published,
        }

    def _acked(self, event: Acked) -> None:
        self.acked[event.record.uid] = event.record

    def _granted(self, event: Granted) -> None:
        """How many bytes of acknowledged WAL past its own end the winner may lack."""
        record, sync = event.payload.record, event.payload.sync
        self._granted_epoch = event.epoch
        self._resumes = event.epoch if event.payload.reign.start is StartMode.RESUME else 0
        if event.payload.reign.start is not StartMode.PROMOTE:
            return
        # While the first set is not proven, commits still rest on nobody: they may go, if said.
        guarded = NO_SET not in event.before.sync.rules and not (sync and sync.after_loss)
        found = BYTES.search(record.reason.split("; its commits")[0])
        if guarded or "loses nothing" in record.reason or "restart of" in record.reason:
            allowed = 0
        else:
            # Counted from what was reported, which may end within a record.
            end = event.payload.reign.seal_lsn or 0
            allowed = end + int(found[1]) if found else ANY
        self._allowed.append((allowed, record.reason))

    def _published(self, event: Published) -> None:
        """Whoever goes on where it was has everything: nobody else acknowledged anything."""
        epoch = event.host.record.opened_epoch
        if not epoch or epoch != self._resumes:
            return
        self._resumes = 0
        if gone := self._lacking(event.host):
            raise Broken(
                f"S4: node {event.host.node_id} goes on in epoch {epoch} without {len(gone)}"
                f" acknowledged writes, the first is {gone[0].uid} at {gone[0].end}"
            )

    def _lacking(self, host: Host) -> list[Record]:
        there = {record.uid for record in host.disk.wal if record.uid}
        return [record for uid, record in self.acked.items() if uid not in there]

    def _promoted(self, event: Promoted) -> None:
        disk, epoch = event.host.disk, event.host.record.opened_epoch
        if epoch < self._granted_epoch:
            return  # late: its epoch is over, so it never acknowledges anything
        allowed, reason = max(self._allowed)
        self._allowed.clear()
        fork = disk.history[-1][1]
        gone = self._lacking(event.host)
        bad = [r for r in gone if r.end > allowed]
        if bad:
            raise Broken(
                f"S4: node {event.host.node_id}, primary of epoch {epoch}, lacks {len(bad)}"
                f" acknowledged writes, the first is {bad[0].uid} at {bad[0].end}, its fork is at"
                f" {fork}; the decision: {reason}"
            )
        event.host.world.tally["writes lost as said"] += len(gone)
        for record in gone:
            del self.acked[record.uid]
