"""Each checker is told of something that must not happen, and objects; and of its like that may."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from pgraft.core.types import (
    AppendReply,
    Config,
    Entry,
    EntryKind,
    HardState,
    Index,
    NodeId,
    Origin,
    Snapshot,
    Term,
    VoteReply,
    VoteRequest,
)
from tests.simulation.checkers import CHECKERS, Checker, CheckFailed, Watch
from tests.simulation.checkers.append_only import AppendOnly
from tests.simulation.checkers.ballot_durability import BallotDurability
from tests.simulation.checkers.base import (
    Acked,
    Applied,
    Committed,
    Configured,
    Fenced,
    Leased,
    Led,
    ReadAsked,
    ReadDone,
    Sent,
    Snapped,
    Started,
    Synced,
    Wrote,
)
from tests.simulation.checkers.commit_durability import CommitDurability
from tests.simulation.checkers.commit_rule import CommitRule
from tests.simulation.checkers.configurations import Configurations
from tests.simulation.checkers.election_safety import ElectionSafety
from tests.simulation.checkers.exactly_once import ExactlyOnce
from tests.simulation.checkers.leader_completeness import LeaderCompleteness
from tests.simulation.checkers.lease_disjointness import LeaseDisjointness
from tests.simulation.checkers.log_matching import LogMatching
from tests.simulation.checkers.progress import ProgressTruth
from tests.simulation.checkers.promise_durability import PromiseDurability
from tests.simulation.checkers.read_freshness import ReadFreshness
from tests.simulation.checkers.state_machine_safety import StateMachineSafety, chained
from tests.support.raft_store import Image

N1, N2, N3, N4 = (NodeId(n) for n in (1, 2, 3, 4))
THREE = Config(voters=frozenset({N1, N2, N3}))


def entry(index: int, term: int = 1, data: bytes = b"", config: Config | None = None) -> Entry:
    kind = EntryKind.COMMAND if config is None else EntryKind.CONFIG
    return Entry(term=Term(term), index=Index(index), kind=kind, data=data, config=config)


def image(*terms: int, term: int = 1, vote: int = 0, base: int = 0) -> Image:
    snapshot = Snapshot(index=Index(base), term=Term(1), config=THREE) if base else None
    entries = [entry(at, of) for at, of in enumerate(terms, base + 1)]
    return Image(HardState(term=Term(term), vote=NodeId(vote)), entries, snapshot)


def led(node: NodeId, term: int, log: Image, votes: tuple[NodeId, ...], config: Config) -> Led:
    disks = {n: image(term=term, vote=node if n in votes else 0) for n in (N1, N2, N3, N4)}
    return Led(node, Term(term), log, Index(0), config, (config,), disks)


def applied(node: NodeId, what: Entry, on: tuple[NodeId, ...] = (N1, N2), term: int = 1) -> Applied:
    holding = image(*[what.term] * what.index)
    disks = {n: holding if n in on else image() for n in (N1, N2, N3, N4)}
    return Applied(node, Term(term), True, what, THREE, disks)


def wrote(node: NodeId, *entries: Entry, cut: int | None = None, prev: int = 0) -> Wrote:
    at = Index(cut) if cut is not None else None
    return Wrote(node, False, at, Term(prev), entries, image(1, 1, 1))


def snapped(index: int, *, before: int, installed: bool = True, digest: int = 0) -> Snapped:
    snapshot = Snapshot(index=Index(index), term=Term(1), config=THREE)
    return Snapped(N1, snapshot, digest, installed, Index(before))


def command(index: int, serial: int) -> Entry:
    origin = Origin(session=7, serial=serial)
    return Entry(term=Term(1), index=Index(index), kind=EntryKind.COMMAND, origin=origin)


ONE_TWO = (applied(N1, entry(1)), applied(N1, entry(2)))
DIGEST = chained(chained(0, entry(1)), entry(2))
TWO_OF_FIVE = Config(voters=frozenset({N1, N2}))
OTHERS = Config(voters=frozenset({N3, N4}))

Trace = tuple[NamedTuple, ...]
STORIES: dict[str, tuple[type[Checker], Trace, NamedTuple, NamedTuple]] = {
    "a second leader of a term": (
        ElectionSafety,
        (led(N1, 2, image(1), (N1, N2), THREE),),
        led(N1, 3, image(1), (N1, N2), THREE),
        led(N2, 2, image(1), (N2, N3), THREE),
    ),
    "a leader without a quorum's votes": (
        ElectionSafety,
        (),
        led(N1, 2, image(1), (N1, N3), THREE),
        led(N1, 2, image(1), (N1, N4), THREE),
    ),
    "a leader that is no voter": (
        ElectionSafety,
        (),
        led(N1, 2, image(1), (N1, N3), THREE),
        led(N4, 2, image(1), (N1, N2, N3), THREE),
    ),
    "a leader that cuts its log": (
        AppendOnly,
        (),
        Wrote(N1, False, Index(2), None, (), image(1, 1)),
        Wrote(N1, True, Index(2), None, (), image(1, 1)),
    ),
    "another entry of one index and term": (
        LogMatching,
        (wrote(N1, entry(1, data=b"a")),),
        wrote(N2, entry(1, data=b"a")),
        wrote(N2, entry(1, data=b"b")),
    ),
    "an entry of another history": (
        LogMatching,
        (wrote(N1, entry(5, 3), prev=1),),
        wrote(N2, entry(5, 3), prev=1),
        wrote(N2, entry(5, 3), prev=2),
    ),
    "a leader that lacks what was committed": (
        LeaderCompleteness,
        ONE_TWO,
        led(N2, 2, image(1, 1), (N1, N2), THREE),
        led(N2, 2, image(1), (N1, N2), THREE),
    ),
    "two entries applied at one index": (
        StateMachineSafety,
        ONE_TWO,
        applied(N2, entry(1)),
        applied(N2, entry(1, data=b"other")),
    ),
    "an entry that is left out": (
        StateMachineSafety,
        (*ONE_TWO, applied(N2, entry(1))),
        applied(N2, entry(2)),
        applied(N3, entry(2)),
    ),
    "an entry that is applied twice": (
        StateMachineSafety,
        ONE_TWO,
        applied(N1, entry(3)),
        applied(N1, entry(2)),
    ),
    "a snapshot that moves the state back": (
        StateMachineSafety,
        ONE_TWO,
        snapped(2, before=1, digest=DIGEST),
        snapped(2, before=2, digest=DIGEST),
    ),
    "a snapshot of another state": (
        StateMachineSafety,
        ONE_TWO,
        snapped(2, before=0, digest=DIGEST),
        snapped(2, before=0, digest=1),
    ),
    "a snapshot of what nobody applied": (
        StateMachineSafety,
        ONE_TWO,
        snapped(2, before=0, digest=DIGEST),
        snapped(9, before=0, digest=DIGEST),
    ),
    "a snapshot that says less than was applied": (
        StateMachineSafety,
        ONE_TWO,
        snapped(2, before=2, installed=False, digest=DIGEST),
        snapped(1, before=2, installed=False, digest=chained(0, entry(1))),
    ),
    "a snapshot with another configuration": (
        StateMachineSafety,
        (*ONE_TWO[:1], applied(N1, entry(2, config=TWO_OF_FIVE))),
        applied(N1, entry(3)),
        snapped(2, before=0, digest=chained(chained(0, entry(1)), entry(2, config=TWO_OF_FIVE))),
    ),
    "a commit that a minority has": (
        CommitDurability,
        (),
        applied(N1, entry(1), on=(N1, N3)),
        applied(N1, entry(1), on=(N1, N4)),
    ),
    "a committed entry that is cut": (
        CommitDurability,
        ONE_TWO,
        wrote(N3, cut=3),
        wrote(N3, cut=2),
    ),
    "a commit by counting an older term (Figure 8)": (
        CommitRule,
        (),
        Committed(N1, Term(4), Term(4)),
        Committed(N1, Term(4), Term(2)),
    ),
    "a term that goes back": (
        BallotDurability,
        (Synced(N1, image(term=5, vote=1)),),
        Synced(N1, image(term=6)),
        Started(N1, image(term=4)),
    ),
    "a second vote in a term": (
        BallotDurability,
        (Synced(N1, image(term=5, vote=2)),),
        Synced(N1, image(term=6, vote=3)),
        Synced(N1, image(term=5, vote=3)),
    ),
    "a vote that is not on disk": (
        PromiseDurability,
        (),
        Sent(N1, N2, VoteReply(term=Term(3), granted=True), image(term=3, vote=2)),
        Sent(N1, N2, VoteReply(term=Term(3), granted=True), image(term=2)),
    ),
    "a candidacy that is not on disk": (
        PromiseDurability,
        (),
        Sent(
            N1,
            N2,
            VoteRequest(term=Term(3), last_index=Index(0), last_term=Term(0)),
            image(term=3, vote=1),
        ),
        Sent(
            N1,
            N2,
            VoteRequest(term=Term(3), last_index=Index(0), last_term=Term(0)),
            image(term=3, vote=2),
        ),
    ),
    "an acknowledgement of what is not on disk": (
        PromiseDurability,
        (),
        Sent(N1, N2, AppendReply(term=Term(1), ok=True, match=Index(2)), image(1, 1)),
        Sent(N1, N2, AppendReply(term=Term(1), ok=True, match=Index(3)), image(1, 1)),
    ),
    "a next that is not above match": (
        ProgressTruth,
        (),
        Acked(N1, Term(1), image(1, 1), N2, Index(2), Index(3), image(1, 1)),
        Acked(N1, Term(1), image(1, 1), N2, Index(2), Index(2), image(1, 1)),
    ),
    "a match that is not true": (
        ProgressTruth,
        (),
        Acked(N1, Term(2), image(1, 2), N2, Index(2), Index(3), image(1, 2, term=2)),
        Acked(N1, Term(2), image(1, 2), N2, Index(2), Index(3), image(1, 1, term=2)),
    ),
    "a change before the last one is committed": (
        Configurations,
        (),
        Configured(N1, True, THREE, Index(5), TWO_OF_FIVE, Index(5)),
        Configured(N1, True, THREE, Index(5), TWO_OF_FIVE, Index(4)),
    ),
    "configurations whose quorums need not meet": (
        Configurations,
        (),
        Configured(
            N2,
            False,
            TWO_OF_FIVE,
            Index(5),
            Config(voters=OTHERS.voters, outgoing=TWO_OF_FIVE.voters),
            Index(0),
        ),
        Configured(N2, False, TWO_OF_FIVE, Index(5), OTHERS, Index(9)),
    ),
    "a configuration without voters": (
        Configurations,
        (),
        Configured(N2, False, Config(voters=frozenset()), Index(0), THREE, Index(0)),
        Configured(N2, False, THREE, Index(0), Config(voters=frozenset()), Index(0)),
    ),
    "a command with effect twice": (
        ExactlyOnce,
        (applied(N1, command(1, serial=1)),),
        applied(N1, command(2, serial=2)),
        applied(N1, command(2, serial=1)),
    ),
    "two leases at once": (
        LeaseDisjointness,
        (Leased(N1, 1, 0, 100),),
        Leased(N2, 2, 100, 200),
        Leased(N2, 2, 99, 200),
    ),
    "a lease beside one whose holder's clock turned slow": (
        LeaseDisjointness,
        (Leased(N1, 1, 0, 100), Leased(N1, 1, 50, 130)),
        Leased(N2, 2, 130, 200),
        Leased(N2, 2, 110, 200),
    ),
    "two holders of one epoch": (
        LeaseDisjointness,
        (Leased(N1, 1, 0, 100),),
        Leased(N1, 1, 150, 200),
        Leased(N2, 1, 150, 200),
    ),
    "an epoch that comes back": (
        LeaseDisjointness,
        (Leased(N1, 1, 0, 100), Leased(N2, 2, 100, 200)),
        Leased(N2, 2, 250, 300),
        Leased(N1, 1, 250, 300),
    ),
    "a fence that was none": (
        LeaseDisjointness,
        (Leased(N1, 1, 0, 100), Fenced(N1, 1, 40)),
        Leased(N2, 2, 41, 200),
        Leased(N2, 2, 39, 200),
    ),
    "a read of the past": (
        ReadFreshness,
        (applied(N1, entry(1)), applied(N1, entry(2)), ReadAsked(N2, 7)),
        ReadDone(N2, 7, Index(2)),
        ReadDone(N2, 7, Index(1)),
    ),
}


def told(checker: type[Checker], events: Trace) -> Watch:
    watch = Watch([checker()])
    for event in events:
        watch.emit(event)
    return watch


@pytest.mark.parametrize("name", STORIES)
def test_it_objects(name: str) -> None:
    checker, before, _, bad = STORIES[name]
    watch = told(checker, before)
    with pytest.raises(CheckFailed):
        watch.emit(bad)


@pytest.mark.parametrize("name", STORIES)
def test_it_lets_the_like_pass(name: str) -> None:
    checker, before, good, _ = STORIES[name]
    told(checker, before).emit(good)


def test_every_checker_has_a_story() -> None:
    assert {checker for checker, _, _, _ in STORIES.values()} == set(CHECKERS)
