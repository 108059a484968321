"""How many seeds it takes to notice a bug that was put in, and what notices it.

Lives here: one mutation against the simulation. Must not live here: the mutations themselves (see
`mutations`), printing (tools/mutants.py). Start reading at `hunt`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.support.raft_group import RunFailed, run_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`found_by` is "" if all seeds passed."""

    name: str
    seeds: int
    found_by: str
    text: str


def hunt(name: str, seeds: int, chaos: int, first: int = 1) -> Verdict:
    """Run seeds with the mutation in place until one fails."""
    logging.disable(logging.ERROR)
    try:
        with pytest.MonkeyPatch.context() as patch:
            MUTATIONS[name](patch)
            for number, seed in enumerate(range(first, first + seeds), 1):
                try:
                    run_seed(seed, chaos=chaos)
                except RunFailed as failure:
                    return Verdict(
                        name=name, seeds=number, found_by=failure.found_by, text=str(failure)
                    )
    finally:
        logging.disable(logging.NOTSET)
    return Verdict(name=name, seeds=seeds, found_by="", text="")
