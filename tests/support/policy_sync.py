"""The verbs of failover stories that are about the synchronous set.

Copies are written as short as they can be: `2a` is the copy `2a00000000000000`. A node without a
word about it holds the copy `<node>a`. Start reading at `SyncVerbs.do_sync`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ramd.domain.lsn import parse_lsn
from ramd.domain.model import DecisionRecord
from ramd.domain.observation import Heard
from ramd.domain.sync import (
    ALONE,
    NO_SET,
    Stream,
    SyncMember,
    SyncMode,
    SyncRecord,
    SyncSeen,
    SyncSet,
)
from ramd.state.commands import ChangeSettings, Command
from ramd.state.sync import ChangeSync, RelaxSync, SettleSync
from tests.support.policy_world import World

if TYPE_CHECKING:
    from tests.support.policy_script import Words


def long_copy(text: str) -> str:
    """`2a` written out."""
    return text.ljust(16, "0") if text else ""


def short_set(target: SyncSet) -> str:
    """`any 1 of 2a 3a`."""
    if not target.members:
        return "the primary alone" if target.alone else "nobody"
    names = (m.copy.rstrip("0") or f"{m.node_id}?" for m in target.members)
    return f"any {target.k} of {' '.join(names)}"


def parse_set(words: list[str]) -> SyncSet:
    """`1 2a 3a`: any 1 of these copies; `alone`; nothing: nobody."""
    if words == ["alone"]:
        return ALONE
    if not words:
        return NO_SET
    members = tuple(SyncMember(node_id=int(w[0]), copy=long_copy(w)) for w in words[1:])
    return SyncSet(members=members, k=int(words[0]))


class SyncVerbs:
    """Mixed into `Story`."""

    world: World

    def _apply(self, command: Command) -> Iterator[str]:
        raise NotImplementedError

    def do_settings(self, words: Words) -> Iterator[str]:
        """settings [auto=on|off] [lag=BYTES] [num=K] [enforce=on] [sync=auto|on|off]."""
        settings = replace(
            self.world.state.settings,
            auto_failover_enabled=words.named.get("auto", "on") == "on",
            maximum_lag_on_failover=words.number("lag"),
            num_sync_standbys=words.number("num", 1),
            enforce_sync_standbys=words.named.get("enforce") == "on",
            synchronous_replication=SyncMode(words.named.get("sync", "auto")),
        )
        yield from self._apply(ChangeSettings(settings=settings))

    def do_sync(self, words: Words) -> Iterator[str]:
        """sync: how it stands. sync change K COPY… | alone | (nobody): the primary begins a change.
        sync settle | relax: it ends one. sync set K COPY…: long since so, nothing under way."""
        what, *rest = words.plain or ["show"]
        state = self.world.state
        epoch, number = words.number("epoch", state.epoch), state.sync.generation
        record = DecisionRecord(epoch=epoch, rule="r", action="a", reason="")
        match what:
            case "set":
                self.world.state = replace(
                    state,
                    sync=SyncRecord(
                        generation=number + 1,
                        rules=(parse_set(rest),),
                        primary_copy=long_copy(words.named.get("own", "")),
                    ),
                )
            case "change":
                yield from self._apply(
                    ChangeSync(
                        epoch=epoch,
                        generation=words.number("number", number + 1),
                        target=parse_set(rest),
                        primary_copy=long_copy(words.named.get("own", "")),
                        record=record,
                    )
                )
            case "settle":
                yield from self._apply(SettleSync(epoch=epoch, generation=number))
            case "relax":
                yield from self._apply(RelaxSync(epoch=epoch, generation=number, record=record))
        yield from self._sync()

    def _sync(self) -> Iterator[str]:
        record = self.world.state.sync
        ruled = ", ".join(short_set(rule) for rule in record.rules)
        change = "" if record.target is None else f"; changing to {short_set(record.target)}"
        yield f"{record.generation}: {ruled} rules{change}"

    def do_confirmed(self, words: Words) -> None:
        """confirmed COPY LSN: what the primary said last that this copy has."""
        copy, lsn = words.plain
        holder = self.world.state.reigns[-1].node_id
        heard = self.world.heard[holder]
        stream = Stream(
            node_id=int(copy[0]), copy=long_copy(copy), flushed=parse_lsn(lsn), counts=True
        )
        self.world.heard[holder] = Heard(
            observation=replace(heard.observation, sync=SyncSeen(streams=(stream,))),
            received_ns=heard.received_ns,
        )
