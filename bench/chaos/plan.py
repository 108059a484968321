"""Which faults come, drawn from a seed: the same seed and the same options give the same plan.

Lives here: kinds of faults, how often each comes, how long it lasts, when the next one follows.
Must not live here: doing them (`harm`). A plan names roles, not nodes: who is primary when a fault
comes is the cluster's own matter, so a replay asks the same questions and may get other answers.
Start reading at `draw`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What is done, in the words of the report."""

    SERVER_KILLED = "server killed"
    CHILD_KILLED = "server's child killed"
    BACKEND_KILLED = "backend killed"
    WALSENDER_KILLED = "walsender killed"
    WALRECEIVER_KILLED = "walreceiver killed"
    NODE_KILLED = "node killed"
    DAEMON_KILLED = "daemon killed"
    DAEMON_STOPPED = "daemon stopped"
    ALL_DAEMONS_KILLED = "all daemons killed"
    ALL_NODES_KILLED = "all nodes killed"
    DAEMON_FROZEN = "daemon frozen"
    NODE_FROZEN = "node frozen"
    SERVER_FROZEN = "server frozen"
    WALSENDER_FROZEN = "walsender frozen"
    WALRECEIVER_FROZEN = "walreceiver frozen"
    PAIR_KILLED = "primary and replica killed"
    PAIR_FROZEN = "primary and replica frozen"
    SWITCHOVER = "switchover"


class Role(StrEnum):
    """Whom it is done to: the primary, some replica, everybody."""

    PRIMARY = "primary"
    REPLICA = "replica"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One fault. Holds: seconds until it is undone, a pair's second host by the second."""

    number: int
    kind: Kind
    role: Role
    pick: int
    """Chooses among several replicas, processes, or targets."""
    hold_s: float
    second_hold_s: float
    settles: bool
    """The next fault waits until everything is undone and the cluster is healthy."""
    pause_s: float
    """Then, or at once if it does not wait, so long until the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a plan is drawn by, beside the seed."""

    hold_s_max: float = 15.0
    """Longer than the lease, so that both a fault that outlasts it and one that does not come."""
    pause_s_mean: float = 3.0
    calm: bool = False
    """One fault after another: each heals before the next."""
    kinds: frozenset[Kind] = frozenset(Kind)


WEIGHTS: Final[dict[Kind, int]] = {
    Kind.SERVER_KILLED: 10,
    Kind.CHILD_KILLED: 4,
    Kind.BACKEND_KILLED: 4,
    Kind.WALSENDER_KILLED: 4,
    Kind.WALRECEIVER_KILLED: 4,
    Kind.NODE_KILLED: 10,
    Kind.DAEMON_KILLED: 8,
    Kind.DAEMON_STOPPED: 4,
    Kind.ALL_DAEMONS_KILLED: 2,
    Kind.ALL_NODES_KILLED: 2,
    Kind.DAEMON_FROZEN: 10,
    Kind.NODE_FROZEN: 10,
    Kind.SERVER_FROZEN: 8,
    Kind.WALSENDER_FROZEN: 5,
    Kind.WALRECEIVER_FROZEN: 5,
    Kind.PAIR_KILLED: 3,
    Kind.PAIR_FROZEN: 3,
    Kind.SWITCHOVER: 12,
}
INSTANT: Final = frozenset(
    {
        Kind.SERVER_KILLED,
        Kind.CHILD_KILLED,
        Kind.BACKEND_KILLED,
        Kind.WALSENDER_KILLED,
        Kind.WALRECEIVER_KILLED,
        Kind.SWITCHOVER,
    }
)
"""Nothing has to be undone: the cluster does it."""
ROLES: Final[dict[Kind, Role]] = {
    Kind.BACKEND_KILLED: Role.PRIMARY,
    Kind.WALSENDER_KILLED: Role.PRIMARY,
    Kind.WALSENDER_FROZEN: Role.PRIMARY,
    Kind.WALRECEIVER_KILLED: Role.REPLICA,
    Kind.WALRECEIVER_FROZEN: Role.REPLICA,
    Kind.PAIR_KILLED: Role.PRIMARY,
    Kind.PAIR_FROZEN: Role.PRIMARY,
    Kind.SWITCHOVER: Role.REPLICA,
    Kind.ALL_DAEMONS_KILLED: Role.ALL,
    Kind.ALL_NODES_KILLED: Role.ALL,
}
"""Of the kinds that leave no choice; the others hit the primary in six of ten cases."""
OF_PRIMARY: Final = 0.6
SETTLES: Final = 0.4
BRIEF: Final = 0.3
"""Share of holds that are over within a second or so: shorter than any timeout."""
BRIEF_S: Final = 1.0
PAUSE_FIRST_S: Final = 0.1
PICK_MAX: Final = 1 << 16


def draw(seed: int, terms: Terms) -> Iterator[Step]:
    """An endless plan. Every step uses the same number of draws, so kinds do not shift others."""
    number = 0
    kinds = [kind for kind in Kind if kind in terms.kinds]
    weights = [WEIGHTS[kind] for kind in kinds]
    while True:
        number += 1
        rng = random.Random(f"chaos {seed} {number}")
        kind = rng.choices(kinds, weights)[0]
        of_primary = rng.random() < OF_PRIMARY
        holds = [_hold(rng, terms.hold_s_max) for _ in range(2)]
        yield Step(
            number=number,
            kind=kind,
            role=ROLES.get(kind, Role.PRIMARY if of_primary else Role.REPLICA),
            pick=rng.randrange(PICK_MAX),
            hold_s=0.0 if kind in INSTANT else holds[0],
            second_hold_s=holds[1] if kind in (Kind.PAIR_KILLED, Kind.PAIR_FROZEN) else 0.0,
            settles=(rng.random() < SETTLES) or terms.calm,
            pause_s=round(PAUSE_FIRST_S + rng.expovariate(1 / terms.pause_s_mean), 2),
        )


def _hold(rng: random.Random, longest_s: float) -> float:
    brief, of_brief, of_long = rng.random() < BRIEF, rng.random(), rng.random()
    return round(min(BRIEF_S, longest_s) * of_brief if brief else longest_s * of_long, 2)
