"""The table of transitions: what is done next, from each situation, towards each kind of goal.

Each entry takes one bounded, idempotent step and says whether to look again. Every combination has
an entry, if only `nothing`. The steps themselves are in `leading`, `following` and `leaving`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from ramd.domain.decision import (
    Follow,
    GiveUp,
    Goal,
    Lead,
    Leave,
    StaySealed,
    Wait,
    Withdraw,
    Yield,
)
from ramd.execute import following as f
from ramd.execute import leading as a
from ramd.execute import leaving as z
from ramd.execute import yielding as y
from ramd.execute.context import Situation, Step
from ramd.execute.work import Work

Transition: TypeAlias = Callable[[Work], Awaitable[Step]]

TRANSITIONS: dict[tuple[Situation, type[Goal]], Transition] = {
    (Situation.ABSENT, Wait): z.nothing,
    (Situation.PARTIAL, Wait): z.nothing,
    (Situation.FOREIGN, Wait): z.nothing,
    (Situation.STOPPED, Wait): z.nothing,
    (Situation.CRASHED, Wait): z.nothing,
    (Situation.STARTING, Wait): z.nothing,
    (Situation.REPLICA, Wait): z.nothing,
    (Situation.PRIMARY, Wait): z.nothing,
    #
    (Situation.ABSENT, Lead): a.lead_absent,
    (Situation.PARTIAL, Lead): a.lead_partial,
    (Situation.FOREIGN, Lead): a.lead_foreign,
    (Situation.STOPPED, Lead): a.lead_stopped,
    (Situation.CRASHED, Lead): a.lead_stopped,
    (Situation.STARTING, Lead): a.lead_starting,
    (Situation.REPLICA, Lead): a.lead_replica,
    (Situation.PRIMARY, Lead): y.lead_primary,
    #
    (Situation.ABSENT, Yield): a.give_up,
    (Situation.PARTIAL, Yield): a.give_up,
    (Situation.FOREIGN, Yield): a.give_up,
    (Situation.STOPPED, Yield): a.give_up,
    (Situation.CRASHED, Yield): a.give_up,
    (Situation.STARTING, Yield): a.give_up,
    (Situation.REPLICA, Yield): a.give_up,
    (Situation.PRIMARY, Yield): y.yield_primary,
    #
    (Situation.ABSENT, GiveUp): a.give_up,
    (Situation.PARTIAL, GiveUp): a.give_up,
    (Situation.FOREIGN, GiveUp): a.give_up,
    (Situation.STOPPED, GiveUp): a.give_up,
    (Situation.CRASHED, GiveUp): a.give_up,
    (Situation.STARTING, GiveUp): a.give_up,
    (Situation.REPLICA, GiveUp): a.give_up,
    (Situation.PRIMARY, GiveUp): a.give_up,
    #
    (Situation.ABSENT, Follow): f.follow_absent,
    (Situation.PARTIAL, Follow): f.follow_partial,
    (Situation.FOREIGN, Follow): f.follow_foreign,
    (Situation.STOPPED, Follow): f.follow_stopped,
    (Situation.CRASHED, Follow): f.follow_stopped,
    (Situation.STARTING, Follow): f.follow_starting,
    (Situation.REPLICA, Follow): f.follow_replica,
    (Situation.PRIMARY, Follow): f.follow_primary,
    #
    (Situation.ABSENT, StaySealed): z.nothing,
    (Situation.PARTIAL, StaySealed): z.nothing,
    (Situation.FOREIGN, StaySealed): z.nothing,
    (Situation.STOPPED, StaySealed): f.seal_stopped,
    (Situation.CRASHED, StaySealed): f.seal_stopped,
    (Situation.STARTING, StaySealed): f.seal_starting,
    (Situation.REPLICA, StaySealed): f.seal_replica,
    (Situation.PRIMARY, StaySealed): f.seal_primary,
    #
    (Situation.ABSENT, Leave): z.leave_done,
    (Situation.PARTIAL, Leave): z.leave_stopped,
    (Situation.FOREIGN, Leave): z.leave_done,
    (Situation.STOPPED, Leave): z.leave_stopped,
    (Situation.CRASHED, Leave): z.leave_stopped,
    (Situation.STARTING, Leave): z.leave_running,
    (Situation.REPLICA, Leave): z.leave_running,
    (Situation.PRIMARY, Leave): z.leave_running,
    #
    (Situation.ABSENT, Withdraw): z.withdraw_done,
    (Situation.PARTIAL, Withdraw): z.withdraw_done,
    (Situation.FOREIGN, Withdraw): z.withdraw_done,
    (Situation.STOPPED, Withdraw): z.withdraw_done,
    (Situation.CRASHED, Withdraw): z.withdraw_done,
    (Situation.STARTING, Withdraw): z.withdraw_running,
    (Situation.REPLICA, Withdraw): z.withdraw_running,
    (Situation.PRIMARY, Withdraw): z.withdraw_primary,
}
