"""The goal of one node: total, and never a primary without its lease."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from ramd.domain.decision import (
    Directive,
    Follow,
    GiveUp,
    Lead,
    Leave,
    LocalFacts,
    StaySealed,
    Wait,
    Withdraw,
    Yield,
)
from ramd.domain.model import ClusterState, Reign, Removal, StartMode
from ramd.domain.observation import Attempt, Observation, ServerRole, ServerState
from ramd.policy.plan import plan
from tests.unit.ramd.policy.views import ATTEMPTS, OBSERVATIONS, SMALL, STATES

DIRECTIVES = st.builds(Directive, epoch=SMALL, attempt=ATTEMPTS, sealed=st.booleans())
FACTS = st.builds(
    LocalFacts,
    me=SMALL,
    now_ns=st.just(10),
    lease_epoch=SMALL,
    lease_deadline_ns=st.integers(0, 20),
    released_epoch=SMALL,
    opened_epoch=SMALL,
    in_touch=st.booleans(),
    sealed_attempt=st.none() | ATTEMPTS,
    self_fenced=st.booleans(),
    adopt_until_ns=st.sampled_from([0, 20]),
    yielding_epoch=SMALL,
)
MANY = settings(max_examples=200)
BLANK = Observation(node_id=1, boot=1, taken_ns=0)
ME = LocalFacts(me=1, now_ns=10)


def test_a_destroyed_cluster_is_left_first_of_all() -> None:
    state = ClusterState(removal=Removal(remove_data=True))
    assert plan(state, None, ME, BLANK) == Leave(remove_data=True)


def test_a_removed_node_withdraws_whatever_its_record_says() -> None:
    state = ClusterState(removal=Removal(remove_data=True))
    assert plan(state, None, replace(ME, removed=True), BLANK) == Withdraw()


def test_without_a_primary_servers_are_left_alone() -> None:
    serving = replace(BLANK, role=ServerRole.PRIMARY)
    assert isinstance(plan(ClusterState(), None, ME, serving), Wait)


@MANY
@given(STATES, st.none() | DIRECTIVES, FACTS, OBSERVATIONS)
def test_goals_keep_the_safety_rules(
    state: ClusterState, directive: Directive | None, facts: LocalFacts, seen: Observation
) -> None:
    goal = plan(state, directive, facts, seen)
    assert goal == plan(state, directive, facts, seen)
    reign = state.reign
    leased = (
        facts.lease_epoch == state.epoch
        and facts.now_ns < facts.lease_deadline_ns
        and facts.released_epoch < state.epoch
    )
    if isinstance(goal, Lead):
        assert leased
        assert reign is not None
        assert (reign.node_id, reign.epoch) == (facts.me, goal.epoch)
    if isinstance(goal, Yield) and facts.yielding_epoch != goal.epoch:
        assert state.handover is not None
        assert facts.released_epoch < goal.epoch
    if isinstance(goal, GiveUp):
        assert goal.epoch == facts.opened_epoch or goal.epoch <= facts.released_epoch
    if isinstance(goal, Follow):
        # Only what a coordinator said, of this epoch, and never against a higher seal (H2).
        assert directive is not None
        assert not directive.sealed
        assert directive.epoch == state.epoch == goal.epoch
        assert reign is not None
        assert reign.node_id == goal.upstream != facts.me
        sealed = facts.sealed_attempt
        assert sealed is None or directive.attempt.key() >= sealed.key()
    if isinstance(goal, StaySealed) and facts.sealed_attempt is not None:
        assert goal.attempt.key() >= facts.sealed_attempt.key()


@MANY
@given(STATES, st.none() | DIRECTIVES, FACTS, OBSERVATIONS)
def test_a_primary_without_a_lease_is_never_left_alone_for_good(
    state: ClusterState, directive: Directive | None, facts: LocalFacts, seen: Observation
) -> None:
    """Once a server was opened by RAMD, Wait is no goal for a primary unless a lease may stand or
    the server refuses by itself."""
    seen = replace(seen, role=ServerRole.PRIMARY)
    goal = plan(state, directive, replace(facts, adopt_until_ns=0, self_fenced=False), seen)
    if isinstance(goal, Wait) and state.reign is not None:
        leased = facts.now_ns < facts.lease_deadline_ns
        first = state.reign.start == "open" and state.reign.node_id == facts.me
        fenced = facts.yielding_epoch == state.epoch - 1 and state.reign.start == "resume"
        assert leased or ((first or fenced) and facts.opened_epoch < state.epoch)


LED = Reign(epoch=2, node_id=1, timeline=2, start=StartMode.PROMOTE, parent_timeline=1)
FIRST = Reign(epoch=1, node_id=1, timeline=1, start=StartMode.OPEN)
LEADING = ClusterState(reigns=(FIRST, LED))
SERVING = replace(BLANK, state=ServerState.RUNNING, role=ServerRole.PRIMARY, accepting=True)
LAPSED = replace(
    ME, opened_epoch=2, lease_epoch=2, lease_deadline_ns=5, self_fenced=True, in_touch=True
)
SEALED = Directive(epoch=2, attempt=Attempt(term=3, number=1), sealed=True)


def test_a_server_that_fences_itself_waits_for_its_lease() -> None:
    assert isinstance(plan(LEADING, None, LAPSED, SERVING), Wait)
    follow = replace(SEALED, sealed=False)
    assert isinstance(plan(LEADING, follow, LAPSED, SERVING), Wait)
    stand_in = replace(LAPSED, self_fenced=False)
    assert isinstance(plan(LEADING, None, stand_in, SERVING), GiveUp)


def test_it_leads_on_when_the_lease_returns() -> None:
    again = replace(LAPSED, lease_deadline_ns=20)
    assert isinstance(plan(LEADING, SEALED, again, SERVING), Lead)


def test_it_gives_up_when_the_coordinator_ends_the_epoch() -> None:
    assert plan(LEADING, SEALED, LAPSED, SERVING) == GiveUp(
        epoch=2, reason="the lease has ended, and the epoch is being ended"
    )


def test_what_an_old_coordinator_said_ends_no_epoch() -> None:
    assert isinstance(plan(LEADING, SEALED, replace(LAPSED, in_touch=False), SERVING), Wait)
    higher = replace(LAPSED, sealed_attempt=Attempt(term=4, number=1))
    assert isinstance(plan(LEADING, SEALED, higher, SERVING), Wait)


def test_a_fenced_server_ahead_of_the_record_is_left_alone() -> None:
    """A restarted daemon has not read the grant again yet."""
    behind = replace(LAPSED, opened_epoch=3)
    assert isinstance(plan(LEADING, None, behind, SERVING), Wait)
    stand_in = replace(behind, self_fenced=False)
    assert isinstance(plan(LEADING, None, stand_in, SERVING), GiveUp)
