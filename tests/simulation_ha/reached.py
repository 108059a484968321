"""What no story comes to: what seeds reach, and what only a unit test does.

Must not live here: what stories reach (they are asked). Start reading at `UNIT_ONLY`.
"""

from __future__ import annotations

from collections import Counter

from tests.simulation_ha.cases import CASES, PLACED, told

UNIT_ONLY = {
    "rule coordinator_not_ready": "tests/unit/ramd/policy/test_decide.py",
    "transition starting GiveUp": "tests/unit/ramd/execute/test_table.py",
    "transition replica GiveUp": "tests/unit/ramd/execute/test_table.py",
    "transition absent GiveUp": "tests/unit/ramd/execute/test_table.py",
    "transition partial GiveUp": "tests/unit/ramd/execute/test_table.py",
    "transition foreign GiveUp": "tests/unit/ramd/execute/test_table.py",
    "transition stopped GiveUp": "tests/unit/ramd/execute/test_table.py",
}
"""Defensive: a coordinator that is not ready does not ask for a decision; and a server that runs as
a replica in an epoch that it was opened for is given back by Lead, or stopped by the guard, before
there is such a goal."""

BY_SEEDS = {
    "rule first_primary_waits",
    "rule handover_cancelled",
    "rule primary_failing",
    "rule sealed_lease_running",
    "rule cold_start_grace",
    "rule auto_failover_disabled",
    "rule restart_in_place",
    "transition primary GiveUp",
}
"""Reached by storms, and in no story: the tool says how often. The rules have their unit tests."""


def by_stories() -> Counter[str]:
    """What all stories come to together; each is told once in a process."""
    reached: Counter[str] = Counter()
    for case in CASES + PLACED:
        reached.update(told(case))
    return reached
