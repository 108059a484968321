"""One file per property. Each checker hears what happens and raises `CheckFailed`."""

from tests.simulation.checkers.append_only import AppendOnly
from tests.simulation.checkers.ballot_durability import BallotDurability
from tests.simulation.checkers.base import Checker, CheckFailed, Watch
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
from tests.simulation.checkers.state_machine_safety import StateMachineSafety

__all__ = ["CHECKERS", "CheckFailed", "Checker", "Watch", "all_checkers"]

CHECKERS: tuple[type[Checker], ...] = (
    ElectionSafety,
    AppendOnly,
    LogMatching,
    LeaderCompleteness,
    StateMachineSafety,
    CommitDurability,
    CommitRule,
    BallotDurability,
    PromiseDurability,
    ProgressTruth,
    Configurations,
    ExactlyOnce,
    LeaseDisjointness,
    ReadFreshness,
)


def all_checkers() -> list[Checker]:
    """A fresh set for one run."""
    return [checker() for checker in CHECKERS]
