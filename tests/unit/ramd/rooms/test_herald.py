"""Every change of the group is said once."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from ramd.domain.model import ClusterState
from ramd.herald import Herald
from tests.support.fake_consensus import FakeConsensus, cluster, reign


def test_each_change_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ramd")
    herald = Herald()
    status = FakeConsensus(1, ClusterState()).status()
    lost = replace(status, has_quorum=False)

    def said() -> list[str]:
        names = [str(record.__dict__["event"]) for record in caplog.records]
        caplog.clear()
        return names

    herald.tell(lost, ClusterState())
    assert said() == [], "a quorum that was never there is not lost"
    herald.tell(status, cluster(reign(1, 1)))
    assert said() == ["cluster_formed", "epoch_began", "quorum_back"]
    herald.tell(status, cluster(reign(1, 1)))
    assert said() == []
    herald.tell(lost, cluster(reign(1, 1), reign(2, 3)))
    assert said() == ["epoch_began", "quorum_lost"]
    herald.tell(lost, cluster(reign(1, 1), reign(2, 3)))
    assert said() == []
