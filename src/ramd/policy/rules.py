"""The ordered table by which the coordinator decides: the first rule that matches wins.

Lives here: `RULES`, each with its condition, its effect and its reason to exist. Must not live
here: how a condition is tested (`ramd.policy.rulings`). Start reading at `RULES`, from the top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ramd.domain.decision import ClusterView
from ramd.policy.damping import fed_hold, may_renew, receivers_fed, renew_hold
from ramd.policy.election import Outcome
from ramd.policy.first import first_reopening
from ramd.policy.handing_over import grant_resume, grant_taker, resumable, taken_over
from ramd.policy.picture import attempt
from ramd.policy.ruling import Ruling
from ramd.policy.rulings import (
    begin_attempt,
    cold_hold,
    cold_start,
    drop_handover,
    failover_off,
    failover_off_hold,
    first_again,
    first_primary,
    first_unopened,
    first_unopened_hold,
    first_wait,
    first_waits,
    grant_winner,
    handover_hopeless,
    handover_wait,
    handover_yielding,
    hold,
    holder_failing,
    lease_running_hold,
    lease_runs,
    move_coordinator,
    opening_hold,
    outcome_is,
    primary_opens,
    primary_serves,
    seal_failing,
    sealed_hold,
    sealed_lease_hold,
    sealed_lease_runs,
    serving_hold,
    should_move_coordinator,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row: its stable name, when it holds (also in words), what it does, why it exists."""

    name: str
    when: Callable[[ClusterView], bool]
    act: Callable[[ClusterView], Ruling]
    condition: str
    effect: str
    because: str


RULES: tuple[Rule, ...] = (
    Rule(
        name="unformed",
        when=lambda view: not view.state.formed,
        act=hold("there is no cluster yet", follow=False),
        condition="no cluster has been formed",
        effect="nothing",
        because="there is nobody to decide about",
    ),
    Rule(
        name="being_removed",
        when=lambda view: view.state.removal is not None,
        act=hold("the cluster is being destroyed", follow=False),
        condition="the cluster is being destroyed",
        effect="nothing",
        because="every node finishes by itself",
    ),
    Rule(
        name="coordinator_not_ready",
        when=lambda view: not view.ready,
        act=hold("no entry of this coordinator's own term is applied yet", follow=False),
        condition="no entry of the coordinator's own term is applied",
        effect="nothing, and nodes are told nothing",
        because="until then a grant of the last coordinator may still be on its way",
    ),
    Rule(
        name="first_primary_waits",
        when=first_waits,
        act=first_wait,
        condition="there was never a primary, and members are missing or data is in the way",
        effect="nothing, with the reason",
        because="whose data counts can only be said when every member has shown its own",
    ),
    Rule(
        name="first_primary",
        when=lambda view: view.state.reign is None,
        act=first_primary,
        condition="there was never a primary, and every member has been heard",
        effect="epoch 1 to the one node with a data directory, else to the lowest id",
        because="existing data is adopted, never overwritten",
    ),
    Rule(
        name="first_primary_again",
        when=lambda view: first_reopening(view) != 0,
        act=first_again,
        condition="the first epoch was given back, every member lives and none has any data",
        effect="the next epoch to the lowest id, to begin anew",
        because="a first start that failed early must not leave a cluster that can never start",
    ),
    Rule(
        name="first_primary_opening",
        when=first_unopened,
        act=first_unopened_hold,
        condition="the first primary has not recorded its data yet, and nobody else has any",
        effect="wait for it, for as long as it takes",
        because="nobody else could take over",
    ),
    Rule(
        name="handover_cancelled",
        when=handover_hopeless,
        act=drop_handover,
        condition="a handover is asked for, the primary serves, and nobody fit could take over",
        effect="the handover is cancelled with the reason",
        because="a healthy primary is not stopped for nothing",
    ),
    Rule(
        name="handover_in_progress",
        when=handover_yielding,
        act=handover_wait,
        condition="a handover is asked for and the lease of the primary runs",
        effect="the primary is fenced and drained, or stops cleanly, and releases; at the latest"
        " its lease runs out",
        because="all of its WAL reaches the replicas first",
    ),
    Rule(
        name="move_coordinator",
        when=should_move_coordinator,
        act=move_coordinator,
        condition="the primary has served for 3 s on the coordinator's own host, another node is"
        " healthy, and no transfer was asked for in the last 10 s",
        effect="coordination is transferred to the healthy node of the lowest id",
        because="losing the primary's host should not also cost an election",
    ),
    Rule(
        name="primary_serving",
        when=primary_serves,
        act=serving_hold,
        condition="the lease runs and the primary is heard serving",
        effect="everyone follows it; an attempt under way ends",
        because="all is well",
    ),
    Rule(
        name="primary_failing",
        when=holder_failing,
        act=seal_failing,
        condition="the elected node has failed 3 times to become primary and another one is fit",
        effect="seal; no renewal is answered, so the lease runs out",
        because="a lease must not keep an epoch that never begins",
    ),
    Rule(
        name="sealed_lease_running",
        when=sealed_lease_runs,
        act=sealed_lease_hold,
        condition="an attempt is under way and the lease still runs",
        effect="stay sealed until it has run out",
        because="nobody is promoted beside a lease",
    ),
    Rule(
        name="primary_opening",
        when=primary_opens,
        act=opening_hold,
        condition="the lease runs, its holder is heard and does not serve",
        effect="wait: it opens, gives the epoch back, or loses the lease",
        because="only the holder itself can say that its server is gone for good",
    ),
    Rule(
        name="lease_running",
        when=lease_runs,
        act=lease_running_hold,
        condition="the lease runs and its holder is silent",
        effect="wait until the lease has run out",
        because="silence is no evidence: it may serve clients right now",
    ),
    Rule(
        name="cold_start_grace",
        when=cold_start,
        act=cold_hold,
        condition="this daemon started less than `startup_grace_ms` ago and has neither heard the"
        " recorded primary's node nor seen the epoch served",
        effect="wait for that node",
        because="after a power cut the last primary most likely has the most data",
    ),
    Rule(
        name="auto_failover_disabled",
        when=failover_off,
        act=failover_off_hold,
        condition="automatic failover is off, no handover is asked for, and the recorded primary"
        " has not both come back and given the epoch back",
        effect="wait for it, or for a person",
        because="people have reserved the choice; the old primary alone may restart in place",
    ),
    Rule(
        name="switchover",
        when=taken_over,
        act=grant_taker,
        condition="a handover is asked for, and the primary has released with its server fenced and"
        " all its WAL confirmed by a fit node: the one asked for, if one was",
        effect="the next epoch, on a new timeline, to that node, without a comparison",
        because="nothing that was acknowledged lies beyond what it has confirmed",
    ),
    Rule(
        name="switchover_undone",
        when=resumable,
        act=grant_resume,
        condition="the primary has released with its server fenced and running, and nobody may"
        " take over",
        effect="the next epoch to the same server, which goes on without a restart",
        because="it alone has all WAL, and its clients need not wait for a restart",
    ),
    Rule(
        name="primary_may_renew",
        when=may_renew,
        act=renew_hold,
        condition="the lease has run out, and the primary was last heard running, fenced by its own"
        " server: it is heard again for less than one lease, or this coordinator has begun, or"
        " stood still, less than 1 s ago and has not heard it since",
        effect="wait: its renewals are answered",
        because="it had nobody to ask; a quorum that was lost and is back must cost no failover",
    ),
    Rule(
        name="receivers_fed",
        when=receivers_fed,
        act=fed_hold,
        condition="the lease ran out less than 1 s ago, the primary was last heard"
        " running, fenced by its own server, and a replica got something from that server more than"
        " 1 s after its daemon was last heard",
        effect="wait for the daemon, bounded",
        because="the server lives: a daemon that is starting again takes it over, in its epoch",
    ),
    Rule(
        name="seal",
        when=lambda view: attempt(view) is None,
        act=begin_attempt,
        condition="the epoch may move and no attempt is under way",
        effect="seal: everyone stops taking WAL and reports its position",
        because="positions can only be compared when they no longer change",
    ),
    Rule(
        name="sealed_waiting",
        when=outcome_is(Outcome.WAIT),
        act=sealed_hold,
        condition="a node whose position matters has not reported, and may still do so in time",
        effect="stay sealed and wait, bounded",
        because="the missing one may hold the most",
    ),
    Rule(
        name="promote_best",
        when=outcome_is(Outcome.PROMOTE),
        act=grant_winner,
        condition="a fit node is found",
        effect="the next epoch, on a new timeline, to the most advanced (then higher priority,"
        " then lower id); the node asked for, if it is as advanced",
        because="the least is lost that way; what is lost is said",
    ),
    Rule(
        name="restart_in_place",
        when=outcome_is(Outcome.RESTART),
        act=grant_winner,
        condition="nobody else is fit (or a handover would lose data, or after a cold start"
        " nobody else holds as much) and the recorded primary has reported",
        effect="the next epoch, on a new timeline, to the recorded primary itself",
        because="the cluster should come back without a person",
    ),
    Rule(
        name="nobody_eligible",
        when=lambda _view: True,
        act=sealed_hold,
        condition="no node may become primary",
        effect="stay sealed; the first node that becomes fit ends it, the old primary included",
        because="nobody is promoted at the price of the rules; every rejection is recorded",
    ),
)
