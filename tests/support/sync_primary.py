"""A new primary whose synchronous set is to be proven, over fakes. Start at `Primary`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ramd.domain.fence import Pulse
from ramd.domain.lsn import Lsn
from ramd.domain.sync import Stream, SyncFacts, SyncMember, SyncRecord, SyncSet
from ramd.execute.syncing import Syncing
from ramd.state.sync import ChangeSync, RelaxSync, SettleSync
from tests.support.fenced_node import elected
from tests.support.ramd_node import ME
from tests.support.virtual_time import clock_ns

COPY = {2: "2" * 16, 3: "3" * 16}
ENOUGH_S = 0.5
"""For several looks; less than it takes a replica to join or leave."""


def any_of(k: int, *nodes: int) -> SyncSet:
    return SyncSet(members=tuple(SyncMember(node_id=n, copy=COPY[n]) for n in nodes), k=k)


def granted(target: SyncSet, *, old: SyncSet | None = None) -> SyncRecord:
    rules = (target,) if old is None else (old, target)
    return SyncRecord(generation=7, rules=rules, target=target)


class Primary:
    """Node 1, elected in epoch 2, its server, and the syncing beside it. `loaded` is the oldest
    generation of any process, `flushed` where each stream is."""

    def __init__(self, tmp_path: Path, record: SyncRecord, *, loads: bool = True) -> None:
        self.node, self.fence = elected(tmp_path, loads=loads)
        self.node.consensus.cluster = replace(self.node.consensus.cluster, sync=record)
        self.syncing = Syncing(
            me=ME,
            server=self.node.server,
            consensus=self.node.consensus,
            store=self.node.store,
            clock=clock_ns,
            changed=self.node.ports.synced.set,
        )
        self.node.unsynced = self.syncing.obstacle
        self.loaded, self.defined = 7, True
        self.flushed: dict[int, int] = {}
        self.counted: set[int] = {2, 3}
        self.strangers = 0
        self.end = 2000
        self.paged: dict[int, Lsn] = {}
        self.asked = 0
        self.show()
        ask = self.node.server.sync_facts

        async def counted(*, timeout_ms: int) -> SyncFacts:
            self.asked += 1
            return await ask(timeout_ms=timeout_ms)

        self.node.server.sync_facts = counted  # type: ignore[method-assign]

    @property
    def record(self) -> SyncRecord:
        return self.node.consensus.cluster.sync

    @property
    def proposed(self) -> list[Any]:
        kinds = (ChangeSync, SettleSync, RelaxSync)
        return [c for c in self.node.consensus.proposed if isinstance(c, kinds)]

    def show(self, **changes: Any) -> None:
        """What page and server say from now on."""
        for name, value in changes.items():
            setattr(self, name, value)
        self.fence.latest = Pulse(
            at_ns=1,
            in_recovery=False,
            timeline=2,
            sync_generation=self.loaded,
            sync_defined=self.defined,
            streams=self.paged,
        )
        self.node.server.streams = SyncFacts(
            flushed=Lsn(self.end),
            names="",
            strangers=self.strangers,
            streams=tuple(
                Stream(node_id=n, copy=COPY[n], flushed=Lsn(at), counts=n in self.counted)
                for n, at in sorted(self.flushed.items())
            ),
        )

    def waits(self) -> str:
        return self.syncing.obstacle(2)
