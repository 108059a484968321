"""A few faults of the chaos run: what it finds well is so, and it leaves nothing behind."""

from __future__ import annotations

import pytest

from bench.chaos.history import Work
from bench.chaos.plan import Kind, Terms
from bench.chaos.report import figures, text
from bench.chaos.run import Options, Run
from tests.support.cluster_stories import four_blocks
from tools.local_processes import belonging_to

KINDS = frozenset({Kind.SERVER_KILLED, Kind.DAEMON_FROZEN, Kind.SWITCHOVER})
FAULTS = 3


@pytest.fixture
def run() -> Run:
    """Ended by the test."""
    terms = Terms(hold_s_max=2, pause_s_mean=0.5, kinds=KINDS)
    options = Options(seed=1, minutes=5, faults_max=FAULTS, terms=terms, command="")
    return Run(options, ports=four_blocks())


def test_a_few_faults_lose_nothing_and_leave_nothing(run: Run) -> None:
    root = run.cluster.root
    try:
        run.whole()
        page = text(run.findings, run.history)
        assert not run.findings.failed, page
        told = figures(run.findings, run.history)
        assert told["faults"] + run.findings.storm.nothing == FAULTS
        assert told["lost"] == 0
        assert 0 < told["availability"] <= 1
        assert told["pgbench"] > 0
        assert {ack.work for ack in run.history.acks} == set(Work)
    finally:
        run.close(keep=False)
    assert not root.exists()
    assert list(belonging_to(root)) == []


def test_the_first_interrupt_ends_the_faults_the_second_everything(run: Run) -> None:
    try:
        with pytest.raises(KeyboardInterrupt):
            run.watch.interrupt()
        run.watch.storming = True
        run.watch.interrupt()
        assert run.watch.ended_early
        with pytest.raises(KeyboardInterrupt):
            run.watch.interrupt()
    finally:
        run.close(keep=False)
