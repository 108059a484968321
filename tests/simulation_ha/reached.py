"""What no story comes to, and the unit test that does.

Must not live here: what stories reach (they are asked). Start reading at `UNIT_ONLY`.
"""

from __future__ import annotations

from collections import Counter

from tests.simulation_ha.cases import CASES, PLACED, told

_WAY_OUT = "tests.unit.ramd.execute.test_table:test_every_state_has_a_way_out_and_then_rests"

UNIT_ONLY = {
    "rule coordinator_not_ready": "tests.unit.ramd.policy.test_decide"
    ":test_nothing_happens_and_nobody_is_told_anything",
    "transition starting GiveUp": _WAY_OUT,
    "transition replica GiveUp": _WAY_OUT,
    "transition absent GiveUp": _WAY_OUT,
    "transition partial GiveUp": _WAY_OUT,
    "transition foreign GiveUp": _WAY_OUT,
    "transition stopped GiveUp": _WAY_OUT,
}
"""Module and function of a test that has each among its parameters.

Defensive: a coordinator that is not ready does not ask for a decision. To give up an epoch that its
server was opened for, `look_briefly` (`ramd.execute.situation`) looks only whether one runs, so it
finds a primary or a crash. Any other epoch is given up only while its server is seen as a primary
that was never opened for it: all else would have to come between that and the next look.
"""


def by_stories() -> Counter[str]:
    """What all stories come to together; each is told once in a process."""
    reached: Counter[str] = Counter()
    for case in CASES + PLACED:
        reached.update(told(case))
    return reached
