"""What entries do to the state, and which are refused."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramd.domain.lsn import LSN_MAX, Lsn
from ramd.domain.model import (
    ClusterState,
    DecisionRecord,
    Handover,
    Member,
    Reign,
    Removal,
    Settings,
    StartMode,
)
from ramd.state.apply import (
    DECISIONS_MAX,
    DETAILS_LINES_MAX,
    REIGNS_MAX,
    TEXT_CHARS_MAX,
    apply,
    apply_explained,
    apply_grant,
    apply_grant_explained,
)
from ramd.state.commands import (
    CancelHandover,
    ChangeSettings,
    Command,
    DescribeMember,
    Destroy,
    GrantPayload,
    InitCluster,
    RecordDecision,
    RecordFork,
    RecordSystem,
    RequestHandover,
)
from ramd.state.settings import GRACE_MS_MAX, LAG_BYTES_MAX

RECORD = DecisionRecord(epoch=1, rule="r", action="a", reason="why")


def member(node_id: int, name: str = "") -> Member:
    return Member(
        node_id=node_id,
        name=name or f"node{node_id}",
        hostname="h",
        postgresql_port=1,
        raft_port=2,
        http_port=3,
    )


def init(*members: Member, **changes: Any) -> InitCluster:
    blank = InitCluster(
        cluster_id="id", cluster_name="name", members=members, settings=Settings(), at_unix_ms=7
    )
    return replace(blank, **changes)


def promoted(epoch: int, node_id: int, timeline: int, parent: int | None = 1) -> Reign:
    return Reign(
        epoch=epoch,
        node_id=node_id,
        timeline=timeline,
        start=StartMode.PROMOTE,
        parent_timeline=parent,
        seal_lsn=Lsn(500),
        since_unix_ms=9,
    )


OPENED = Reign(epoch=1, node_id=1, timeline=1, start=StartMode.OPEN)


def granted(state: ClusterState, *reigns: Reign) -> ClusterState:
    for reign in reigns:
        payload = GrantPayload(reign=reign, record=RECORD)
        index = state.applied_index + 1
        state = apply_grant(state, reign.node_id, reign.epoch, payload, index)
        assert state.reign == replace(reign, fork_lsn=None)
    return state


@pytest.fixture
def formed() -> ClusterState:
    return apply(ClusterState(), init(member(2), member(1), member(3)), 1)


@pytest.fixture
def led(formed: ClusterState) -> ClusterState:
    """Epoch 1 of node 1 with its system recorded, epoch 2 of node 2 without a fork."""
    opened = granted(formed, OPENED)
    return granted(apply(opened, RecordSystem(system_id="77"), 3), promoted(2, 2, 2))


def refused(state: ClusterState, command: Command) -> str:
    """The reason; nothing but the index has changed."""
    index = state.applied_index + 1
    applied = apply_explained(state, command, index)
    assert applied.refusal
    assert applied.state == replace(state, applied_index=index)
    return applied.refusal


# --- forming -----------------------------------------------------------------------------------


def test_a_cluster_is_formed_once_with_members_in_order(formed: ClusterState) -> None:
    assert formed.formed
    assert [m.node_id for m in formed.members] == [1, 2, 3]
    assert (formed.cluster_name, formed.changed_unix_ms) == ("name", 7)
    assert "exists" in refused(formed, init(member(1)))


@pytest.mark.parametrize(
    "command",
    [
        init(),
        init(*(member(n) for n in range(1, 11))),
        init(member(0)),
        init(member(10)),
        init(member(1), member(1, "other")),
        init(member(1, "same"), member(2, "same")),
        init(replace(member(1), name="")),
        init(member(1), cluster_id=""),
        init(member(1), cluster_name=""),
        init(member(1), settings=Settings(maximum_lag_on_failover=-1)),
        init(member(1), settings=Settings(maximum_lag_on_failover=LAG_BYTES_MAX + 1)),
        init(member(1), settings=Settings(startup_grace_ms=-1)),
        init(member(1), settings=Settings(startup_grace_ms=GRACE_MS_MAX + 1)),
    ],
)
def test_a_malformed_cluster_is_refused(command: InitCluster) -> None:
    refused(ClusterState(), command)


def test_without_a_cluster_nothing_else_is_accepted() -> None:
    for command in (RecordSystem(system_id="1"), Destroy(removal=Removal(remove_data=True))):
        assert refused(ClusterState(), command) == "there is no cluster"


# --- grants ------------------------------------------------------------------------------------


def test_a_grant_begins_a_reign(led: ClusterState) -> None:
    assert [reign.epoch for reign in led.reigns] == [1, 2]
    assert led.timeline_high == 2
    assert led.failover_count == 1
    assert led.changed_unix_ms == 9
    assert led.decisions[-1] == RECORD


def test_a_grant_ends_a_handover(led: ClusterState) -> None:
    state = apply(led, RequestHandover(handover=Handover(epoch=2, target=3)), 9)
    assert state.handover is not None
    assert granted(state, promoted(3, 3, 3)).handover is None


def test_a_grant_never_brings_a_fork(formed: ClusterState) -> None:
    first = replace(promoted(1, 2, 2), fork_lsn=Lsn(1))
    assert granted(formed, first).reigns[0].fork_lsn is None


@pytest.mark.parametrize(
    ("holder", "epoch", "reign", "why"),
    [
        (3, 2, promoted(2, 3, 3), "does not follow"),
        (3, 4, promoted(4, 3, 3), "does not follow"),
        (3, 3, promoted(3, 2, 3), "the payload names"),
        (3, 3, promoted(4, 3, 3), "the payload names"),
        (4, 3, promoted(3, 4, 3), "not a member"),
        (3, 3, promoted(3, 3, 2), "was named before"),
        (3, 3, promoted(3, 3, 3, parent=None), "cannot come from"),
        (3, 3, promoted(3, 3, 3, parent=3), "cannot come from"),
        (3, 3, promoted(3, 3, 3, parent=0), "cannot come from"),
        (3, 3, replace(OPENED, epoch=3, node_id=3, timeline=9), "only a promotion"),
    ],
)
def test_a_grant_that_does_not_fit_is_refused(
    led: ClusterState, holder: int, epoch: int, reign: Reign, why: str
) -> None:
    payload = GrantPayload(reign=reign, record=RECORD)
    applied = apply_grant_explained(led, holder, epoch, payload, 50)
    assert why in applied.refusal
    assert applied.state == replace(led, applied_index=50)


def test_only_while_no_server_is_recorded_may_an_epoch_be_opened(formed: ClusterState) -> None:
    adopted = granted(formed, replace(OPENED, timeline=7))
    again = granted(adopted, replace(OPENED, epoch=2, timeline=7))
    assert again.timeline_high == 7
    below = GrantPayload(reign=replace(OPENED, epoch=2, timeline=6), record=RECORD)
    assert "below" in apply_grant_explained(adopted, 1, 2, below, 9).refusal
    nothing = GrantPayload(reign=replace(OPENED, timeline=0), record=RECORD)
    assert "below" in apply_grant_explained(formed, 1, 1, nothing, 9).refusal


def test_an_index_is_applied_once(led: ClusterState) -> None:
    command = Destroy(removal=Removal(remove_data=False))
    assert apply_explained(led, command, led.applied_index).state is led
    payload = GrantPayload(reign=promoted(3, 3, 3), record=RECORD)
    assert apply_grant_explained(led, 3, 3, payload, 1).state is led
    assert "before" in apply_grant_explained(led, 3, 3, payload, 1).refusal


def test_the_record_of_reigns_is_bounded(formed: ClusterState) -> None:
    reigns = [promoted(n, 1 + n % 3, n + 1, parent=n) for n in range(1, REIGNS_MAX + 11)]
    state = granted(formed, *reigns)
    assert len(state.reigns) == REIGNS_MAX
    assert state.reigns[0].epoch == 11
    assert state.failover_count == REIGNS_MAX + 9


# --- what a primary reports --------------------------------------------------------------------


def test_the_system_id_is_recorded_once(formed: ClusterState) -> None:
    assert "no primary" in refused(formed, RecordSystem(system_id="77"))
    opened = granted(formed, OPENED)
    assert refused(opened, RecordSystem(system_id=""))
    state = apply(opened, RecordSystem(system_id="77"), 9)
    assert state.system_id == "77"
    assert "77" in refused(state, RecordSystem(system_id="78"))


def test_a_fork_is_recorded_once_for_its_own_epoch(led: ClusterState) -> None:
    fork = RecordFork(epoch=2, parent_timeline=1, fork_lsn=Lsn(500))
    later = granted(led, promoted(3, 3, 3))
    state = apply(later, fork, 9)
    assert [r.fork_lsn for r in state.reigns] == [None, 500, None]
    assert "is recorded" in refused(state, fork)


def test_a_fork_within_an_incomplete_record_lies_before_the_election(led: ClusterState) -> None:
    state = apply(led, RecordFork(epoch=2, parent_timeline=1, fork_lsn=Lsn(460)), 9)
    assert state.reigns[1].fork_lsn == 460


@pytest.mark.parametrize(
    ("epoch", "parent", "lsn"),
    [(9, 1, 500), (1, 1, 500), (2, 7, 500), (2, 1, 0), (2, 1, -5), (2, 1, LSN_MAX + 1)],
)
def test_a_fork_that_does_not_fit_is_refused(
    led: ClusterState, epoch: int, parent: int, lsn: int
) -> None:
    refused(led, RecordFork(epoch=epoch, parent_timeline=parent, fork_lsn=Lsn(lsn)))


# --- what people ask for -----------------------------------------------------------------------


def test_a_handover_is_asked_for_one_at_a_time(led: ClusterState) -> None:
    asked = apply(led, RequestHandover(handover=Handover(epoch=2, target=None)), 9)
    assert asked.handover == Handover(epoch=2, target=None)
    assert "under way" in refused(asked, RequestHandover(handover=Handover(epoch=2, target=3)))
    assert "no handover" in refused(asked, CancelHandover(epoch=1, reason="why"))
    dropped = apply(asked, CancelHandover(epoch=2, reason="nobody streams", at_unix_ms=5), 10)
    assert dropped.handover is None
    assert dropped.decisions[-1].reason == "nobody streams"
    assert "no handover" in refused(dropped, CancelHandover(epoch=2, reason="why"))


@pytest.mark.parametrize(
    ("epoch", "target", "why"),
    [(1, 3, "present"), (3, 3, "present"), (2, 9, "member"), (2, 2, "is the primary")],
)
def test_a_handover_that_makes_no_sense_is_refused(
    led: ClusterState, epoch: int, target: int, why: str
) -> None:
    command = RequestHandover(handover=Handover(epoch=epoch, target=target))
    assert why in refused(led, command)


def test_a_wanted_target_is_accepted(led: ClusterState) -> None:
    assert apply(led, RequestHandover(handover=Handover(epoch=2, target=3)), 9).handover


def test_a_cluster_is_destroyed_once(led: ClusterState) -> None:
    gone = apply(led, Destroy(removal=Removal(remove_data=True)), 9)
    assert gone.removal == Removal(remove_data=True)
    refused(gone, Destroy(removal=Removal(remove_data=False)))
    refused(gone, RequestHandover(handover=Handover(epoch=2, target=None)))


def test_settings_are_replaced_if_they_are_sane(led: ClusterState) -> None:
    wanted = Settings(auto_failover_enabled=False, maximum_lag_on_failover=5)
    assert apply(led, ChangeSettings(settings=wanted), 9).settings == wanted
    refused(led, ChangeSettings(settings=Settings(startup_grace_ms=-1)))


def test_the_history_is_bounded_in_every_direction(led: ClusterState) -> None:
    long = replace(RECORD, reason="r" * 999, details=("d" * 999,) * 99)
    state = led
    for index in range(10, 10 + DECISIONS_MAX + 5):
        state = apply(state, RecordDecision(record=long), index)
    assert len(state.decisions) == DECISIONS_MAX
    kept = state.decisions[-1]
    assert len(kept.reason) == TEXT_CHARS_MAX
    assert len(kept.details) == DETAILS_LINES_MAX
    assert {len(text) for text in kept.details} == {TEXT_CHARS_MAX}


# --- properties --------------------------------------------------------------------------------

SMALL = st.integers(-1, 5)
REIGNS = st.builds(
    Reign,
    epoch=SMALL,
    node_id=SMALL,
    timeline=SMALL,
    start=st.sampled_from(StartMode),
    parent_timeline=st.none() | SMALL,
    fork_lsn=st.none() | st.integers(-1, 900).map(Lsn),
    seal_lsn=st.none() | st.integers(-1, 900).map(Lsn),
)
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(init, st.builds(member, SMALL), st.builds(member, SMALL)),
    st.builds(RecordSystem, system_id=st.sampled_from(["", "7"])),
    st.builds(
        RecordFork, epoch=SMALL, parent_timeline=SMALL, fork_lsn=st.integers(-1, 900).map(Lsn)
    ),
    st.builds(
        RequestHandover,
        handover=st.builds(Handover, epoch=SMALL, target=st.none() | SMALL),
    ),
    st.builds(CancelHandover, epoch=SMALL, reason=st.text(max_size=3)),
    st.just(RecordDecision(record=RECORD)),
    st.builds(Destroy, removal=st.builds(Removal, remove_data=st.booleans())),
    st.builds(ChangeSettings, settings=st.builds(Settings, maximum_lag_on_failover=SMALL)),
    st.builds(
        DescribeMember,
        node_id=SMALL,
        name=st.sampled_from(["node1", "x"]),
        priority=SMALL,
        nofailover=st.booleans(),
    ),
)
GRANTS = st.tuples(SMALL, SMALL, st.builds(GrantPayload, reign=REIGNS, record=st.just(RECORD)))
LIKELY = st.tuples(st.just(0), st.just(0), st.integers(1, 3))
"""A grant that fits, whatever the state: filled in while it runs."""


def _step(state: ClusterState, entry: Any, index: int) -> ClusterState:
    if not isinstance(entry, tuple):
        return apply(state, entry, index)
    holder, epoch, payload = entry
    if isinstance(payload, int):
        holder, epoch = payload, state.epoch + 1
        high = state.timeline_high
        reign = promoted(epoch, holder, high + 2, parent=high + 1)
        payload = GrantPayload(reign=reign, record=RECORD)
    return apply_grant(state, holder, epoch, payload, index)


@given(st.lists(st.one_of(COMMANDS, GRANTS, LIKELY), max_size=30))
def test_no_history_takes_anything_back(entries: list[Any]) -> None:
    """Total; epochs and timelines only grow; at most one grant per epoch; forks never change."""
    state = apply(ClusterState(), init(member(1), member(2), member(3)), 1)
    holders: dict[int, Reign] = {}
    for index, entry in enumerate(entries, start=2):
        before, state = state, _step(state, entry, index)
        assert state.applied_index == index
        assert before.epoch <= state.epoch <= before.epoch + 1
        assert state.timeline_high >= before.timeline_high
        assert state.system_id in (before.system_id or state.system_id, state.system_id)
        for reign in state.reigns:
            first = holders.setdefault(reign.epoch, reign)
            assert replace(reign, fork_lsn=first.fork_lsn) == first
            if first.fork_lsn is not None:
                assert reign.fork_lsn == first.fork_lsn
            holders[reign.epoch] = reign
        promotions = [r.timeline for r in state.reigns if r.start is StartMode.PROMOTE]
        assert promotions == sorted(set(promotions))


@given(st.lists(st.one_of(COMMANDS, GRANTS, LIKELY), max_size=15))
def test_the_same_entries_end_in_the_same_state(entries: list[Any]) -> None:
    ends = []
    for _ in range(2):
        state = apply(ClusterState(), init(member(1), member(2)), 1)
        for index, entry in enumerate(entries, start=2):
            state = _step(state, entry, index)
        ends.append(state)
    assert ends[0] == ends[1]
