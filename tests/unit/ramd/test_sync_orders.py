"""Two orders about synchronous replication at once: neither undoes the other in silence."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest

from ramd.domain.errors import Refused, Unavailable
from ramd.domain.service import SyncChange
from ramd.domain.sync import SyncMode, SyncOrder
from ramd.policy.syncorder import ordered
from ramd.state.apply import apply
from ramd.state.commands import ChangeSettings, Command, decode
from ramd.sync_orders import ATTEMPTS_MAX, record_order
from tests.support.fake_consensus import FakeConsensus, cluster, reign


class Group(FakeConsensus):
    """Applies what is proposed; `first` holds what others get into the log before each proposal."""

    def __init__(self) -> None:
        formed = cluster(reign(1, 1), members=4)
        super().__init__(1, formed)
        self.cluster = formed
        self.first: deque[SyncOrder | Command] = deque()
        self.seen: list[ChangeSettings] = []

    async def propose(self, command: bytes, *, timeout_s: float) -> None:
        if self.first:
            other = self.first.popleft()
            if isinstance(other, SyncOrder):
                other = ChangeSettings(settings=ordered(self.cluster, other))
            self.log(other)
        decoded = decode(command)
        assert isinstance(decoded, ChangeSettings)
        self.seen.append(decoded)
        self.log(decoded)

    def log(self, command: Command) -> None:
        self.cluster = apply(self.cluster, command, self.cluster.applied_index + 1)

    async def order(self, **wanted: object) -> None:
        await record_order(self, SyncChange(order=SyncOrder(**wanted), actor="x"))  # type: ignore[arg-type]


async def test_orders_about_different_settings_both_take_effect() -> None:
    group = Group()
    group.first.append(SyncOrder(enforce_sync_standbys=True))
    await group.order(num_sync_standbys=2)
    settings = group.cluster.settings
    assert (settings.num_sync_standbys, settings.enforce_sync_standbys) == (2, True)


async def test_two_nodes_taken_off_the_list_at_once_are_both_off() -> None:
    group = Group()
    group.first.append(SyncOrder(remove="node2"))
    await group.order(remove="node3")
    assert group.cluster.settings.sync_standby_names == ("node1", "node4")


async def test_what_the_other_order_left_may_forbid_this_one() -> None:
    """Without the second look the list would name one replica, and two would have to confirm."""
    group = Group()
    await group.order(num_sync_standbys=2)
    group.first.append(SyncOrder(remove="node2"))
    with pytest.raises(Refused, match="only 1 replicas could confirm"):
        await group.order(remove="node3")
    assert group.cluster.settings.sync_standby_names == ("node1", "node3", "node4")


@pytest.mark.parametrize(
    ("wanted", "other", "says"),
    [
        (SyncOrder(num_sync_standbys=2), SyncOrder(num_sync_standbys=3), "from 1 to 3"),
        (SyncOrder(mode=SyncMode.ON), SyncOrder(mode=SyncMode.OFF), "from auto to off"),
        (
            SyncOrder(enforce_sync_standbys=False, num_sync_standbys=2),
            SyncOrder(enforce_sync_standbys=True),
            "enforce_sync_standbys was changed by somebody else .* from false to true",
        ),
    ],
)
async def test_the_loser_about_one_setting_is_told_what_changed(
    wanted: SyncOrder, other: SyncOrder, says: str
) -> None:
    group = Group()
    group.first.append(other)
    left = ordered(group.cluster, other)
    with pytest.raises(Refused, match=says) as refused:
        await record_order(group, SyncChange(order=wanted, actor="x"))
    assert refused.value.code == "conflict"
    assert group.cluster.settings == left


async def test_an_order_that_was_changed_again_at_once_had_taken_effect() -> None:
    """Whoever comes after it had seen it: it is not given a second time."""
    group = Group()
    apply_one = group.log

    def both(command: Command) -> None:
        apply_one(command)
        apply_one(ChangeSettings(settings=replace(group.cluster.settings, num_sync_standbys=3)))

    group.log = both  # type: ignore[method-assign]
    await group.order(num_sync_standbys=2)
    assert len(group.seen) == 1
    assert group.cluster.settings.num_sync_standbys == 3


async def test_the_attempts_are_bounded() -> None:
    group = Group()
    group.first.extend(
        SyncOrder(sync_replication_timeout_ms=1000 + n) for n in range(ATTEMPTS_MAX + 1)
    )
    with pytest.raises(Refused) as refused:
        await group.order(num_sync_standbys=2)
    assert refused.value.code == "busy"
    assert len(group.seen) == ATTEMPTS_MAX
    assert group.cluster.settings.num_sync_standbys == 1


async def test_nothing_is_made_from_a_state_that_may_be_old() -> None:
    group = Group()
    group.unread = True
    with pytest.raises(Unavailable):
        await group.order(num_sync_standbys=2)
    assert group.seen == []
