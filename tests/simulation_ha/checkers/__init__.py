"""One file per safety rule. Each checker hears what happens and raises `Broken`."""

from tests.simulation_ha.checkers.base import Broken, Checker, Watch
from tests.simulation_ha.checkers.data_kept import DataKept
from tests.simulation_ha.checkers.explained import Explained
from tests.simulation_ha.checkers.leased_acks import LeasedAcks
from tests.simulation_ha.checkers.lineage import Lineage
from tests.simulation_ha.checkers.no_lost_commit import NoLostCommit
from tests.simulation_ha.checkers.one_primary import OnePrimary
from tests.simulation_ha.checkers.proven_start import ProvenStart

__all__ = ["CHECKERS", "Broken", "Checker", "Watch"]

CHECKERS: tuple[type[Checker], ...] = (
    LeasedAcks,
    OnePrimary,
    NoLostCommit,
    ProvenStart,
    Lineage,
    DataKept,
    Explained,
)
