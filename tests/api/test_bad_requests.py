"""Orders that make no sense: refused by name with what would be accepted, and nobody is asked.

Lives here: what is wrong with a request by itself. Must not live here: what the state of a cluster
forbids (tests of `ramd.policy.obstacles` and `syncorder`, `tests/e2e/test_refusals.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ramd.domain.errors import EndedOtherwise, Moved
from tests.api.harness import Api, serving
from tests.api.stories import healthy
from tests.unit.ramctrl.cli import ramctrl

EITHER = "must be an id from 1 to 9, or a name"
NODES = "nodes: node1, node2, node3; or an id, 'primary', 'replica1'"


@pytest.fixture(scope="module")
def served() -> Iterator[Api]:
    with serving() as api:
        yield api


@pytest.fixture
def api(served: Api) -> Api:
    served.service.story = healthy()
    served.service.fails = None
    served.service.asked.clear()
    return served


@pytest.mark.parametrize(
    ("path", "body", "field", "says"),
    [
        ("/cluster/failover", {"target_node": ""}, "target_node", EITHER),
        ("/cluster/failover", {"target_node": "x" * 64}, "target_node", EITHER),
        ("/cluster/failover", {"target_node": [2]}, "target_node", EITHER),
        ("/cluster/failover", {"target_node": True}, "target_node", EITHER),
        ("/cluster/failover", {"target_node": 2.0}, "target_node", EITHER),
        ("/cluster/failover", {"target_node": 0}, "target_node", "must be at least 1"),
        ("/cluster/failover", {"target_node": 10}, "target_node", "must be at most 9"),
        ("/cluster/failover", {"target": 2}, "target", "no such field"),
        ("/cluster/failover", {"accept_loss": "yes"}, "accept_loss", "must be true or false"),
        ("/cluster/promote", {}, "node_id", "is required"),
        ("/cluster/promote", {"node_id": None}, "node_id", EITHER),
        ("/cluster/promote", {"node_id": 2, "force": True}, "force", "no such field"),
        ("/cluster/demote", {}, "node_id", "is required"),
        ("/cluster/demote", {"node_id": [1]}, "node_id", EITHER),
        ("/replication/sync", {"mode": "remote"}, "mode", "must be 'auto', 'on' or 'off'"),
        ("/replication/sync", {"mode": 1}, "mode", "must be 'auto', 'on' or 'off'"),
        ("/replication/sync", {"num_sync_standbys": 0}, "num_sync_standbys", "at least 1"),
        ("/replication/sync", {"num_sync_standbys": 9}, "num_sync_standbys", "at most 8"),
        ("/replication/sync", {"num_sync_standbys": "2"}, "num_sync_standbys", "whole number"),
        ("/replication/sync", {"enforce_sync_standbys": 1}, "enforce_sync_standbys", "true or"),
        (
            "/replication/sync",
            {"sync_replication_timeout_ms": 99},
            "sync_replication_timeout_ms",
            "must be at least 100",
        ),
        ("/sync-standbys/add", {}, "node_name", "is required"),
        ("/sync-standbys/add", {"node_name": 3}, "node_name", "must be text"),
        ("/sync-standbys/remove", {"node_name": ""}, "node_name", "must not be empty"),
        ("/sync-standbys/remove", {"node_id": 2}, "node_id", "no such field"),
    ],
)
def test_a_wrong_field_is_named_with_what_would_do(
    api: Api, path: str, body: object, field: str, says: str
) -> None:
    answer = api.post(path, body)
    assert (answer.status, answer.body["error"]) == (400, "invalid_field")
    assert answer.body["details"]["field"] == field
    assert says in answer.body["message"]
    if "such field" in says or "required" in says:
        assert answer.body["hint"]
    assert api.service.asked == []


@pytest.mark.parametrize("raw", [b"[2]", b'"node2"', b'{"target_node": 2', b"{} {}", b"\xff"])
def test_what_is_no_object_says_what_would_be_one(api: Api, raw: bytes) -> None:
    answer = api.post("/cluster/failover", raw=raw)
    assert (answer.status, answer.body["error"]) == (400, "bad_request")
    assert "object" in answer.body["hint"]
    assert api.service.asked == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/cluster/failover", {"target_node": "node9"}, "target_node"),
        ("/cluster/failover", {"target_node": "replica3"}, "target_node"),
        ("/cluster/promote", {"node_id": 9}, "node_id"),
        ("/cluster/demote", {"node_id": "nobody"}, "node_id"),
    ],
)
def test_an_unknown_node_is_told_which_ones_there_are(
    api: Api, path: str, body: object, field: str
) -> None:
    answer = api.post(path, body)
    assert (answer.status, answer.body["error"]) == (404, "not_found")
    assert (answer.body["details"]["field"], answer.body["hint"]) == (field, NODES)
    assert api.service.asked == []


def test_demote_of_another_node_says_who_the_primary_is(api: Api) -> None:
    answer = api.post("/cluster/demote", {"node_id": "replica1"})
    assert (answer.status, answer.body["error"]) == (409, "conflict")
    assert answer.body["message"] == "node 2 is not the primary: that is node 1"
    assert "'primary'" in answer.body["hint"]
    assert api.service.asked == []


def test_another_node_than_the_one_asked_for_is_told_as_data(api: Api) -> None:
    moved = Moved(target_node=3, old_primary=1, new_primary=2, epoch=5)
    api.service.fails = EndedOtherwise("node 2 is primary now, not node 3", moved=moved)
    answer = api.post("/cluster/failover", {"target_node": 3})
    assert (answer.status, answer.body["error"]) == (409, "other_node_promoted")
    assert answer.body["details"] == {
        "target_node": 3,
        "old_primary": 1,
        "new_primary": 2,
        "epoch": 5,
    }
    ran = ramctrl("--port", str(api.port), "cluster", "failover", "--target", "3")
    assert (ran.code, ran.out) == (11, "")
    assert ran.err.startswith("error: node 2 is primary now, not node 3\n")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("failover", "--target", "nobody"), 4, NODES),
        (("failover", "--target", "0"), 2, "must be at least 1"),
        (("failover", "--target", "10"), 2, "must be at most 9"),
        (("failover", "--target", ""), 2, EITHER),
        (("failover", "2"), 2, "unexpected extra argument"),
        (("promote",), 2, "which node?"),
        (("promote", "7"), 4, NODES),
        (("demote", "2"), 5, "that is node 1"),
        (("demote", "nobody"), 4, NODES),
        (("replication", "set-mode"), 2, "what?"),
        (("replication", "set-mode", "remote"), 2, "must be 'auto', 'on' or 'off'"),
        (("replication", "set-mode", "--count", "0"), 2, "must be at least 1"),
        (("replication", "set-mode", "--count", "many"), 2, "--count"),
        (("replication", "set-mode", "--wait-ms", "5"), 2, "must be at least 100"),
        (("replication", "add"), 2, "node"),
        (("replication", "remove", ""), 2, "must not be empty"),
    ],
)
def test_ramctrl_says_it_and_exits_accordingly(
    api: Api, arguments: tuple[str, ...], code: int, says: str
) -> None:
    ran = ramctrl("--port", str(api.port), *arguments)
    assert (ran.code, ran.out) == (code, ""), ran
    assert says in ran.err
    assert api.service.asked == []
