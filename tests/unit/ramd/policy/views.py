"""Views, small and arbitrary, for the tests of this folder."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from ramd.domain.decision import ClusterView, LeaseView, Memory, SealAttempt
from ramd.domain.lsn import Lsn
from ramd.domain.model import (
    ClusterState,
    Handover,
    Member,
    Reign,
    Removal,
    Settings,
    StartMode,
)
from ramd.domain.observation import (
    Attempt,
    DataKind,
    Heard,
    Observation,
    Position,
    SealReport,
    ServerRole,
    ServerState,
)

MS = 1_000_000
NOW_NS = 100_000 * MS


def member(node_id: int, **changes: Any) -> Member:
    return Member(
        node_id=node_id,
        name=f"node{node_id}",
        hostname="h",
        postgresql_port=1,
        raft_port=2,
        http_port=3,
        **changes,
    )


def view(state: ClusterState, **changes: Any) -> ClusterView:
    """Coordinator is node 3, for a long time; nobody has been heard."""
    facts: dict[str, Any] = {
        "now_ns": NOW_NS,
        "me": 3,
        "term": 5,
        "coordinator_since_ns": 0,
        "started_ns": 0,
        "state": state,
        "heard": {},
        "lease": LeaseView(may_move_at_ns=None),
    }
    return ClusterView(**(facts | changes))


REIGN = Reign(epoch=1, node_id=1, timeline=1, start=StartMode.OPEN)
LED = ClusterState(
    cluster_id="c",
    members=(member(1), member(2), member(3)),
    system_id="1",
    reigns=(REIGN,),
    timeline_high=1,
)
RUNNING = LeaseView(may_move_at_ns=NOW_NS + 3000 * MS)


def heard(node_id: int, *, upstream: int | None = None, primary: bool = False) -> Heard:
    seen = Observation(
        node_id=node_id,
        boot=1,
        taken_ns=0,
        data=DataKind.CLUSTER,
        state=ServerState.RUNNING,
        role=ServerRole.PRIMARY if primary else ServerRole.REPLICA,
        accepting=True,
        position=Position(timeline=1, lsn=Lsn(500)),
        upstream=upstream,
        epoch_opened=1 if primary else 0,
    )
    return Heard(observation=seen, received_ns=NOW_NS)


def healthy(**changes: object) -> ClusterView:
    everyone = {1: heard(1, primary=True), 2: heard(2, upstream=1), 3: heard(3)}
    return replace(view(LED, heard=everyone, lease=RUNNING), **changes)  # type: ignore[arg-type]


# --- arbitrary ones ----------------------------------------------------------------------------

SMALL = st.integers(0, 5)
LSNS = st.integers(0, 900).map(Lsn)
ATTEMPTS = st.builds(Attempt, term=st.integers(4, 5), number=st.integers(0, 2))
POSITIONS = st.builds(Position, timeline=SMALL, lsn=LSNS)
OBSERVATIONS = st.builds(
    Observation,
    node_id=SMALL,
    boot=st.just(1),
    taken_ns=st.just(0),
    data=st.sampled_from(DataKind),
    state=st.sampled_from(ServerState),
    role=st.none() | st.sampled_from(ServerRole),
    accepting=st.booleans(),
    system_id=st.sampled_from(["", "1", "2"]),
    position=st.none() | POSITIONS,
    upstream=st.none() | SMALL,
    sealed=st.none() | st.builds(SealReport, epoch=SMALL, attempt=ATTEMPTS, position=POSITIONS),
    epoch_opened=SMALL,
    failures=st.integers(0, 4),
)
TIMES = st.integers(NOW_NS - 40_000 * MS, NOW_NS + 5_000 * MS)
HEARD = st.builds(Heard, observation=OBSERVATIONS, received_ns=TIMES)
REIGNS = st.builds(
    Reign,
    epoch=SMALL,
    node_id=SMALL,
    timeline=SMALL,
    start=st.sampled_from(StartMode),
    parent_timeline=st.none() | SMALL,
    fork_lsn=st.none() | LSNS,
    seal_lsn=st.none() | LSNS,
)
STATES = st.builds(
    ClusterState,
    cluster_id=st.sampled_from(["c", "c", "c", ""]),
    members=st.lists(
        st.builds(member, SMALL, priority=st.integers(0, 100), nofailover=st.booleans()),
        max_size=4,
        unique_by=lambda one: one.node_id,
    ).map(tuple),
    settings=st.builds(
        Settings,
        auto_failover_enabled=st.booleans(),
        maximum_lag_on_failover=st.sampled_from([0, 100]),
    ),
    system_id=st.sampled_from(["", "1"]),
    reigns=st.lists(REIGNS, max_size=4).map(tuple),
    timeline_high=SMALL,
    handover=st.none() | st.builds(Handover, epoch=SMALL, target=st.none() | SMALL),
    removal=st.sampled_from([None, None, None, Removal(remove_data=False)]),
)
LEASES = st.builds(
    LeaseView,
    may_move_at_ns=st.none() | TIMES,
    released=st.booleans(),
    release_lsn=st.none() | LSNS,
    release_timeline=st.none() | SMALL,
    holders=st.lists(SMALL, max_size=3).map(tuple),
    stands_by=st.booleans(),
)
VIEWS = st.builds(
    ClusterView,
    now_ns=st.just(NOW_NS),
    me=SMALL,
    term=st.just(5),
    coordinator_since_ns=TIMES,
    started_ns=TIMES,
    state=STATES,
    heard=st.dictionaries(SMALL, HEARD, max_size=4),
    lease=LEASES,
    sealing=st.none() | st.builds(SealAttempt, epoch=SMALL, attempt=ATTEMPTS, begun_ns=TIMES),
    next_attempt=st.integers(1, 3),
    last_transfer_ns=st.just(0) | TIMES,
    ready=st.sampled_from([True, True, True, False]),
    memory=st.builds(Memory, served_epoch=SMALL, serving_since_ns=st.none() | TIMES),
)


# --- likely ones: an attempt in a cluster with a history ---------------------------------------


@st.composite
def attempts(draw: st.DrawFn) -> ClusterView:
    """The epoch may move, an attempt is under way, and most nodes have reported under it."""
    reigns = [Reign(epoch=1, node_id=1, timeline=1, start=StartMode.OPEN)]
    for epoch in range(2, draw(st.integers(2, 5))):
        parent = draw(st.sampled_from(reigns))
        reigns.append(
            Reign(
                epoch=epoch,
                node_id=draw(st.integers(1, 3)),
                timeline=reigns[-1].timeline + draw(st.integers(1, 2)),
                start=StartMode.PROMOTE,
                parent_timeline=parent.timeline,
                seal_lsn=draw(LSNS),
                fork_lsn=draw(st.none() | LSNS),
            )
        )
    high = reigns[-1].timeline + draw(st.integers(0, 1))
    under = SealAttempt(
        epoch=reigns[-1].epoch, attempt=Attempt(term=5, number=2), begun_ns=draw(TIMES)
    )
    state = replace(
        draw(STATES),
        cluster_id="c",
        members=tuple(member(n, nofailover=draw(st.booleans())) for n in (1, 2, 3, 4)),
        system_id="1",
        reigns=tuple(reigns),
        timeline_high=high,
        removal=None,
    )
    positions = st.builds(
        Position, timeline=st.sampled_from([r.timeline for r in reigns]), lsn=LSNS
    )
    heard = {n: draw(_reports(n, under, positions)) for n in (1, 2, 3, 4)}
    lease = replace(draw(LEASES), may_move_at_ns=NOW_NS - MS)
    return view(
        state,
        heard=heard,
        lease=lease,
        sealing=under,
        next_attempt=3,
        started_ns=draw(TIMES),
        coordinator_since_ns=draw(TIMES),
    )


@st.composite
def _reports(
    draw: st.DrawFn, node_id: int, under: SealAttempt, positions: st.SearchStrategy[Position]
) -> Heard:
    attempt = draw(st.sampled_from([under.attempt, under.attempt, Attempt(term=5, number=1)]))
    report = SealReport(epoch=under.epoch, attempt=attempt, position=draw(positions))
    seen = Observation(
        node_id=node_id,
        boot=1,
        taken_ns=0,
        data=DataKind.CLUSTER,
        state=draw(st.sampled_from([ServerState.RUNNING, ServerState.STOPPED])),
        role=ServerRole.REPLICA,
        system_id="1",
        position=report.position,
        sealed=draw(st.none() | st.just(report)),
    )
    silent = draw(st.booleans()) and draw(st.booleans())
    return Heard(observation=seen, received_ns=0 if silent else NOW_NS)
