"""What a primary does about its synchronous set as replicas come, go and come back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState, DecisionRecord, Member, Reign, Settings, StartMode
from ramd.domain.sync import ALONE, NO_SET, Stream, SyncMember, SyncMode, SyncRecord, SyncSet
from ramd.policy.syncing import (
    JOIN_NS,
    LEAVE_NS,
    Change,
    Keep,
    Relax,
    SyncMemory,
    SyncView,
    consider,
    recall,
    waiting,
)
from ramd.state.apply import apply_explained
from ramd.state.sync import RULES_MAX, ChangeSync, RelaxSync, SettleSync
from tests.unit.ramd.policy.views import MS, member

TIMEOUT_NS = 10_000 * MS
COPY = {2: "2" * 16, 3: "3" * 16, 4: "4" * 16}


def members(*nodes: int) -> tuple[SyncMember, ...]:
    return tuple(SyncMember(node_id=node, copy=COPY[node]) for node in nodes)


def any_of(k: int, *nodes: int) -> SyncSet:
    return SyncSet(members=members(*nodes), k=k)


@dataclass
class Primary:
    """Node 1, which looks each 100 ms; what it proposes is applied at once, a proof at the next."""

    nodes: int = 3
    settings: Settings = field(default_factory=Settings)
    tags: dict[int, dict[str, Any]] = field(default_factory=dict)
    sync: SyncRecord = field(default_factory=SyncRecord)
    now_ns: int = 1_000_000 * MS
    streams: set[tuple[int, str]] = field(default_factory=set)
    provable: bool = True
    memory: SyncMemory = field(default_factory=SyncMemory)
    proves: bool = True
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        reign = Reign(epoch=1, node_id=1, timeline=1, start=StartMode.OPEN)
        ids = range(1, self.nodes + 1)
        made: tuple[Member, ...] = tuple(member(n, **self.tags.get(n, {})) for n in ids)
        self.state = ClusterState(
            cluster_id="c", members=made, settings=self.settings, reigns=(reign,), sync=self.sync
        )

    @property
    def record(self) -> SyncRecord:
        return self.state.sync

    def come(self, *nodes: int) -> None:
        self.streams |= {(node, COPY[node]) for node in nodes}

    def go(self, *nodes: int) -> None:
        self.streams = {stream for stream in self.streams if stream[0] not in nodes}

    def set(self, **changes: Any) -> None:
        self.state = replace(self.state, settings=replace(self.state.settings, **changes))

    def view(self) -> SyncView:
        streams = tuple(
            Stream(node_id=node, copy=copy, flushed=Lsn(1), counts=True)
            for node, copy in sorted(self.streams)
        )
        view = SyncView(
            now_ns=self.now_ns,
            me=1,
            state=self.state,
            streams=streams,
            provable=self.provable,
            memory=self.memory,
        )
        self.memory = recall(view)
        return replace(view, memory=self.memory)

    def look(self) -> Keep | Change | Relax:
        choice = consider(self.view())
        number = self.record.generation
        why = DecisionRecord(epoch=1, rule="r", action="a", reason="w")
        match choice:
            case Change(target=target, reason=reason):
                self.said.append(reason)
                self.apply(
                    ChangeSync(
                        epoch=1, generation=number + 1, target=target, primary_copy="", record=why
                    )
                )
            case Relax(reason=reason):
                self.said.append(reason)
                self.apply(RelaxSync(epoch=1, generation=number, record=why))
            case Keep():
                if self.proves and self.record.target is not None:
                    self.apply(SettleSync(epoch=1, generation=number))
        return choice

    def apply(self, command: ChangeSync | RelaxSync | SettleSync) -> None:
        applied = apply_explained(self.state, command, self.state.applied_index + 1)
        assert not applied.refusal, applied.refusal
        self.state = applied.state

    def wait(self, ns: int) -> Keep | Change | Relax:
        until_ns = self.now_ns + ns
        choice = self.look()
        while self.now_ns < until_ns:
            self.now_ns += 100 * MS
            choice = self.look()
        return choice


def test_the_first_set_waits_for_everybody_and_then_has_everybody() -> None:
    primary = Primary()
    primary.come(2)
    assert isinstance(primary.wait(5_000 * MS), Keep)
    assert primary.record.goal == NO_SET
    primary.come(3)
    assert isinstance(primary.look(), Change), "commits wait for nobody until then"
    primary.wait(200 * MS)
    assert primary.record == SyncRecord(generation=1, rules=(any_of(1, 2, 3),))
    assert primary.said == ["commits wait for any 1 of node 2, 3: 2 replicas stream"]


def test_the_first_set_does_not_wait_for_ever() -> None:
    primary = Primary()
    primary.come(2)
    primary.wait(TIMEOUT_NS + JOIN_NS)
    assert primary.record.goal == any_of(1, 2)


def test_a_replica_joins_only_after_a_while() -> None:
    primary = Primary(sync=SyncRecord(generation=1, rules=(any_of(1, 2),)))
    primary.come(2)
    for _ in range(5):
        primary.come(3)
        primary.wait(JOIN_NS - 300 * MS)
        primary.go(3)
        primary.wait(200 * MS)
    assert primary.record.goal == any_of(1, 2)
    assert primary.said == []


def test_a_member_that_is_lost_leaves_after_a_while() -> None:
    """Else two positions would be needed where only one can be had."""
    primary = Primary(sync=SyncRecord(generation=1, rules=(any_of(1, 2, 3),)))
    primary.come(2, 3)
    primary.wait(1000 * MS)
    primary.go(3)
    primary.wait(LEAVE_NS - 300 * MS)
    assert primary.record.goal == any_of(1, 2, 3)
    primary.wait(500 * MS)
    assert primary.record.goal == any_of(1, 2)
    primary.come(3)
    primary.wait(JOIN_NS + 200 * MS)
    assert primary.record.goal == any_of(1, 2, 3)


def test_a_new_copy_of_a_member_takes_its_place() -> None:
    primary = Primary(sync=SyncRecord(generation=1, rules=(any_of(1, 2, 3),)))
    primary.come(2, 3)
    primary.wait(1000 * MS)
    primary.go(3)
    primary.streams.add((3, "f" * 16))
    primary.wait(LEAVE_NS + 300 * MS)
    assert primary.record.goal == SyncSet(
        members=(*members(2), SyncMember(node_id=3, copy="f" * 16)), k=1
    )
    assert (3, COPY[3]) not in {(m.node_id, m.copy) for m in primary.record.goal.members}


def test_without_replicas_the_primary_goes_on_alone_in_two_entries() -> None:
    primary = Primary(sync=SyncRecord(generation=1, rules=(any_of(1, 2, 3),)))
    primary.come(2, 3)
    primary.wait(1000 * MS)
    primary.go(2, 3)
    primary.wait(TIMEOUT_NS - 200 * MS)
    assert primary.record.goal == any_of(1, 2, 3)
    while primary.record.target is None:
        primary.wait(100 * MS)
    assert primary.record == SyncRecord(generation=2, rules=(any_of(1, 2, 3),), target=ALONE)
    assert isinstance(primary.look(), Relax)
    assert primary.record == SyncRecord(generation=2, rules=(ALONE,))
    assert primary.said[0] == (
        "commits wait for nobody (the primary alone): 0 of 1 replicas stream after 10000 ms"
    )
    assert isinstance(primary.wait(TIMEOUT_NS), Keep)
    primary.come(3)
    primary.wait(JOIN_NS + 200 * MS)
    assert primary.record.goal == any_of(1, 3)


def test_a_replica_that_comes_back_half_way_ends_it() -> None:
    primary = Primary(sync=SyncRecord(generation=2, rules=(any_of(1, 2, 3),), target=ALONE))
    primary.come(2, 3)
    primary.memory = SyncMemory(since_ns=1, streaming=dict.fromkeys(members(2, 3), 1))
    assert isinstance(primary.look(), Change)
    assert primary.record.rules == (any_of(1, 2, 3),)
    assert primary.record.target == any_of(1, 2, 3)


def test_fewer_than_wanted_are_put_up_with_after_the_timeout() -> None:
    primary = Primary(nodes=4, sync=SyncRecord(generation=1, rules=(any_of(2, 2, 3, 4),)))
    primary.set(num_sync_standbys=2)
    primary.come(2, 3, 4)
    primary.wait(1000 * MS)
    assert waiting(primary.view()) == ""
    primary.go(3, 4)
    primary.wait(TIMEOUT_NS - 300 * MS)
    assert primary.record.goal == any_of(2, 2, 3, 4)
    primary.wait(600 * MS)
    assert primary.record.goal == any_of(1, 2)
    assert primary.said == [
        "commits wait for any 1 of node 2: 1 of 2 replicas stream after 10000 ms"
    ]


def test_where_that_is_enforced_writes_wait() -> None:
    primary = Primary(
        nodes=4,
        settings=Settings(enforce_sync_standbys=True, num_sync_standbys=2),
        sync=SyncRecord(generation=1, rules=(any_of(2, 2, 3, 4),)),
    )
    primary.come(2, 3, 4)
    primary.wait(1000 * MS)
    primary.go(3, 4)
    primary.wait(3 * TIMEOUT_NS)
    assert primary.record.goal == any_of(2, 2, 3)
    assert waiting(primary.view()) == "commits wait for any 2 of node 2, 3: node 3 does not stream"
    primary.go(2)
    primary.wait(3 * TIMEOUT_NS)
    assert primary.record.goal == any_of(2, 2, 3)
    primary.streams.add((2, COPY[4]))  # Another copy of a node confirms nothing.
    assert waiting(primary.view()).endswith(": node 2, 3 do not stream")


def test_enforcing_while_alone_waits_for_whoever_comes() -> None:
    primary = Primary(
        settings=Settings(enforce_sync_standbys=True),
        sync=SyncRecord(generation=1, rules=(ALONE,)),
        proves=False,
    )
    primary.wait(1000 * MS)
    unnamed = SyncSet(members=(SyncMember(node_id=2, copy=""),), k=1)
    assert primary.record.goal == unnamed
    primary.come(3)
    primary.wait(JOIN_NS + 200 * MS)
    assert primary.record.goal == any_of(1, 3)


def test_the_first_set_is_not_begun_with_fewer_than_enforced() -> None:
    primary = Primary(nodes=4, settings=Settings(enforce_sync_standbys=True, num_sync_standbys=3))
    primary.come(2, 3)
    choice = primary.wait(2 * TIMEOUT_NS)
    assert choice == Keep(reason="2 of 3 replicas stream; the first set needs 3")


def test_nobody_rested_on_a_set_yet() -> None:
    primary = Primary()
    choice = primary.wait(2 * TIMEOUT_NS)
    assert choice == Keep(reason="0 of 1 replicas stream after 10000 ms")
    assert primary.record.goal == NO_SET


@pytest.mark.parametrize(
    ("nodes", "settings", "tags", "wanted"),
    [
        (3, Settings(), {}, any_of(1, 2, 3)),
        (2, Settings(), {}, NO_SET),
        (2, Settings(synchronous_replication=SyncMode.ON), {}, any_of(1, 2)),
        (3, Settings(synchronous_replication=SyncMode.OFF), {}, NO_SET),
        (3, Settings(), {3: {"nosync": True}}, any_of(1, 2)),
        (3, Settings(), {2: {"nosync": True}, 3: {"nosync": True}}, NO_SET),
        (4, Settings(), {3: {"nosync": True}}, any_of(1, 2, 4)),
        (4, Settings(sync_standby_names=("node3", "node4")), {}, any_of(1, 3, 4)),
        (1, Settings(synchronous_replication=SyncMode.ON), {}, NO_SET),
        (4, Settings(num_sync_standbys=2), {}, any_of(2, 2, 3, 4)),
    ],
)
def test_who_is_waited_for_is_what_people_set(
    nodes: int, settings: Settings, tags: dict[int, dict[str, Any]], wanted: SyncSet
) -> None:
    primary = Primary(nodes=nodes, settings=settings, tags=tags)
    primary.come(*range(2, nodes + 1))
    primary.wait(JOIN_NS + 500 * MS)
    assert primary.record.goal == wanted


def test_switching_off_takes_two_entries_as_well() -> None:
    primary = Primary(sync=SyncRecord(generation=1, rules=(any_of(1, 2, 3),)))
    primary.come(2, 3)
    primary.set(synchronous_replication=SyncMode.OFF)
    assert isinstance(primary.look(), Change)
    assert primary.record.rules == (any_of(1, 2, 3),)
    assert isinstance(primary.look(), Relax)
    assert primary.record.asynchronous
    said = "commits wait for nobody: synchronous_replication is off, and 2 replicas may confirm"
    assert primary.said[0] == said


def test_a_member_that_may_not_confirm_any_more_is_taken_out() -> None:
    primary = Primary(nodes=4, sync=SyncRecord(generation=1, rules=(any_of(1, 2, 3, 4),)))
    primary.come(2, 3, 4)
    primary.set(sync_standby_names=("node2", "node3"))
    primary.look()
    assert primary.record.goal == any_of(1, 2, 3)


def test_without_the_extension_nothing_is_begun() -> None:
    primary = Primary(provable=False)
    primary.come(2, 3)
    choice = primary.wait(2 * TIMEOUT_NS)
    assert isinstance(choice, Keep)
    assert "extension" in choice.reason
    assert primary.record.goal == NO_SET


def test_a_change_that_cannot_be_proven_may_be_undone() -> None:
    primary = Primary(sync=SyncRecord(generation=1, rules=(any_of(1, 2),)), proves=False)
    primary.come(2, 3)
    primary.wait(JOIN_NS + 200 * MS)
    assert primary.record.rules == (any_of(1, 2), any_of(1, 2, 3))
    primary.go(3)
    primary.wait(LEAVE_NS + 200 * MS)
    assert primary.record.rules == (any_of(1, 2, 3), any_of(1, 2))
    primary.proves = True
    primary.look()
    assert list(primary.record.rules) == [any_of(1, 2)]


def test_a_stream_without_a_name_of_its_copy_counts_for_nothing() -> None:
    primary = Primary()
    primary.streams = {(2, ""), (3, "")}
    primary.wait(2 * TIMEOUT_NS)
    assert primary.record.goal == NO_SET


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["come", "go", "copy", "wait", "long", "num", "enforce", "mode", "prove"]),
        st.integers(2, 4),
    ),
    max_size=40,
)


def happen(primary: Primary, what: str, node: int) -> None:
    match what:
        case "come":
            primary.come(node)
        case "go":
            primary.go(node)
        case "copy":
            primary.streams.add((node, f"{node}" * 15 + "f"))
        case "wait" | "long":
            primary.wait(300 * MS if what == "wait" else TIMEOUT_NS)
        case "num":
            primary.set(num_sync_standbys=node - 1)
        case "enforce":
            enforce = not primary.state.settings.enforce_sync_standbys
            primary.set(enforce_sync_standbys=enforce)
        case "mode":
            primary.set(synchronous_replication=list(SyncMode)[node - 2])
        case _:
            primary.proves = not primary.proves or len(primary.record.rules) > RULES_MAX - 3


@given(EVENTS)
def test_whatever_comes_and_goes_every_step_is_acceptable(events: list[tuple[str, int]]) -> None:
    """Nothing that it proposes is ever refused, and once all is well the set has everybody."""
    primary = Primary(nodes=4)
    for what, node in events:
        happen(primary, what, node)
        primary.look()
    primary.set(synchronous_replication=SyncMode.AUTO, num_sync_standbys=2)
    primary.proves = True
    primary.streams.clear()
    primary.come(2, 3, 4)
    primary.wait(2 * TIMEOUT_NS)
    assert primary.record.rules == (any_of(2, 2, 3, 4),)
    assert primary.record.target is None
