"""Every state has a way out: whatever happened before, healed nodes end with one primary."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ramd.domain.model import Handover
from ramd.policy.decide import decide
from ramd.state.commands import RequestHandover
from tests.unit.ramd.policy.closed_loop import STEP_NS, TTL_NS, Loop, cluster, fault

HEAL_STEPS_MAX = 600

FAULTS = st.lists(
    st.tuples(
        st.sampled_from(["server", "node", "start", "coordinator", "handover"]),
        st.integers(1, 3),
        st.integers(0, 45),
    ),
    max_size=10,
)


def guarded(loop: Loop) -> Loop:
    """Every server checks the lease itself."""
    for node in loop.nodes.values():
        node.guards = True
    return loop


def heal(loop: Loop) -> int:
    """Everything is switched on again; the number of steps until all is well."""
    for node in loop.nodes.values():
        node.alive = True
    for step in range(HEAL_STEPS_MAX):
        loop.step()
        if loop.healthy():
            return step
    raise AssertionError(f"no way out of {decide(loop.view())} in {loop.state.reigns[-3:]}")


@settings(max_examples=120)
@given(st.integers(1, 4), FAULTS, st.booleans())
def test_every_state_has_a_way_out(
    size: int, faults: list[tuple[str, int, int]], guards: bool
) -> None:
    loop = guarded(cluster(size)) if guards else cluster(size)
    for what, node_id, steps in faults:
        fault(loop, what, node_id)
        for _ in range(steps):
            loop.step()
    heal(loop)


@settings(max_examples=60)
@given(FAULTS)
def test_also_with_automatic_failover_off(faults: list[tuple[str, int, int]]) -> None:
    loop = cluster(3, auto_failover_enabled=False)
    heal(loop)
    first = loop.state.reigns[-1].node_id
    for what, node_id, steps in faults:
        if what == "handover":
            continue
        fault(loop, what, node_id)
        for _ in range(steps):
            loop.step()
    heal(loop)
    assert {reign.node_id for reign in loop.state.reigns} == {first}


def test_a_crash_of_the_server_needs_no_clone_and_less_than_a_lease() -> None:
    loop = cluster(3)
    heal(loop)
    before = {n: node.clones for n, node in loop.nodes.items()}
    primary = loop.state.reigns[-1].node_id
    fault(loop, "server", primary)
    assert heal(loop) * STEP_NS < TTL_NS
    assert loop.state.reigns[-1].node_id != primary
    assert {n: node.clones for n, node in loop.nodes.items()} == before


def test_a_handover_needs_no_clone_and_less_than_a_lease() -> None:
    loop = cluster(3)
    heal(loop)
    before = {n: node.clones for n, node in loop.nodes.items()}
    loop.commit(RequestHandover(handover=Handover(epoch=1, target=3)))
    assert heal(loop) * STEP_NS < TTL_NS
    assert loop.state.reigns[-1].node_id == 3
    assert {n: node.clones for n, node in loop.nodes.items()} == before


def test_a_fenced_switchover_needs_no_clone_and_hardly_any_time() -> None:
    loop = guarded(cluster(3))
    heal(loop)
    before = {n: node.clones for n, node in loop.nodes.items()}
    loop.commit(RequestHandover(handover=Handover(epoch=1, target=3)))
    assert heal(loop) * STEP_NS < TTL_NS / 3
    assert loop.state.reigns[-1].node_id == 3
    assert {n: node.clones for n, node in loop.nodes.items()} == before


def test_a_target_that_dies_undoes_it_and_the_old_primary_goes_on() -> None:
    loop = guarded(cluster(3))
    heal(loop)
    old = loop.state.reigns[-1].node_id
    target = next(n for n in (2, 3) if n not in (old, loop.boss))
    loop.commit(RequestHandover(handover=Handover(epoch=1, target=target)))
    fault(loop, "node", target)
    for _ in range(5):
        loop.step()
    assert loop.resumed == 1
    assert loop.leads(loop.nodes[old])
    assert [reign.timeline for reign in loop.state.reigns] == [1, 1]
    heal(loop)
    assert loop.state.reigns[-1].node_id == old
