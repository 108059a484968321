"""How a member learns that it is none any more."""

from __future__ import annotations

import logging

import pytest

from pgraft.core.types import Config, NodeId, PeerRecord
from pgraft.net.transport import Refusal
from ramd.link.removal import RemovalWatch

MINE = "member-1"
THERE = Config(
    voters=frozenset({NodeId(1)}),
    peers=(PeerRecord(node=NodeId(1), uuid=MINE, address="h:1"),),
)
GONE = Config(voters=frozenset({NodeId(2)}), removed=(MINE,))
ANOTHER = Config(voters=frozenset({NodeId(2)}), removed=("member-0",))


def refusal(code: str, *, by_peer: bool = True) -> Refusal:
    return Refusal(node=NodeId(2), code=code, text="in its words", by_peer=by_peer)


def test_its_own_log_counts_for_this_very_member_only() -> None:
    watch = RemovalWatch(MINE, lambda: None)
    assert watch.known(THERE) == ""
    assert watch.known(ANOTHER) == ""
    assert watch.known(GONE) == "its own log says so"
    assert watch.known(Config(voters=frozenset())) == ""


def test_a_peer_that_proves_it_is_believed() -> None:
    woken: list[int] = []
    watch = RemovalWatch(MINE, lambda: woken.append(1))
    watch.on_refused(refusal("removed", by_peer=False))
    watch.on_refused(refusal("member_uuid"))
    assert watch.known(THERE) == ""
    watch.on_refused(refusal("removed"))
    watch.on_refused(refusal("removed"))
    assert watch.known(THERE) == "node 2 says so"
    assert woken == [1]


def test_that_it_regressed_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = RemovalWatch(MINE, lambda: None)
    with caplog.at_level(logging.ERROR, "ramd"):
        for _ in range(3):
            watch.on_refused(refusal("regressed"))
    said = [r for r in caplog.records if getattr(r, "event", "") == "node_regressed"]
    assert len(said) == 1
    assert watch.known(THERE) == ""
