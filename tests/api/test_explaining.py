"""What was decided and what would be, over HTTP; promote and demote as failovers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ramd.domain.decision import ClusterView, LeaseView
from ramd.domain.errors import Obstacle, Refused
from ramd.domain.model import DecisionRecord, Phase
from ramd.domain.service import FailoverRequest, Snapshot
from tests.api import stories
from tests.api.harness import Api, serving


@pytest.fixture(scope="module")
def served() -> Iterator[Api]:
    with serving() as api:
        yield api


@pytest.fixture
def api(served: Api) -> Api:
    served.service.story = with_view(stories.healthy())
    served.service.fails = None
    served.service.asked.clear()
    return served


def with_view(snapshot: Snapshot, *, ready: bool = True) -> Snapshot:
    """What `decide` would look at there."""
    state = snapshot.state
    decisions = tuple(
        DecisionRecord(
            epoch=n,
            rule="promote_best" if n % 2 else "seal",
            action="GrantTo" if n % 2 else "Hold",
            reason=f"r{n}",
            details=("d",),
            at_unix_ms=1_700_000_000_000 + n,
            phases=(Phase(name="total", ms=n),) if n % 2 else (),
        )
        for n in range(30)
    )
    view = ClusterView(
        now_ns=stories.NOW_NS,
        me=1,
        term=1,
        coordinator_since_ns=0,
        started_ns=0,
        state=state,
        heard={h.observation.node_id: h for h in snapshot.heard},
        lease=LeaseView(may_move_at_ns=stories.NOW_NS + 3 * stories.SECOND_NS),
        ready=ready,
    )
    return replace(snapshot, state=replace(state, decisions=decisions), view=view)


def test_decisions_come_newest_first_and_bounded(api: Api) -> None:
    data = api.get("/cluster/decisions").data
    assert (len(data["decisions"]), data["kept"]) == (20, 30)
    first = data["decisions"][0]
    assert (first["epoch"], first["phases"]) == (29, [{"name": "total", "ms": 29}])
    assert first["at"].startswith("2023-11-14T")
    assert len(api.get("/cluster/decisions?limit=3").data["decisions"]) == 3


def test_decisions_are_filtered(api: Api) -> None:
    seals = api.get("/cluster/decisions?rule=seal&limit=100").data["decisions"]
    assert {one["rule"] for one in seals} == {"seal"}
    assert len(seals) == 15
    (one,) = api.get("/cluster/decisions?epoch=4").data["decisions"]
    assert one["reason"] == "r4"
    changes = api.get("/cluster/decisions?changes=true&limit=100").data["decisions"]
    assert {one["action"] for one in changes} == {"GrantTo"}


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "epoch=-1", "changes=maybe"])
def test_a_wrong_filter_is_refused(api: Api, query: str) -> None:
    answer = api.get(f"/cluster/decisions?{query}")
    assert (answer.status, answer.body["error"]) == (400, "invalid_field")


def test_explain_tells_what_is_and_what_would_be(api: Api) -> None:
    data = api.get("/cluster/explain").data
    assert data["now"]["rule"] == "primary_serving"
    assert data["switchover_targets"] == [2, 3]
    assert data["if_host_lost"]["node_id"] == 2
    assert data["if_server_crashed"]["node_id"] == 2
    assert "promote on timeline" in data["if_host_lost"]["action"]
    by_id = {one["node_id"]: one for one in data["candidates"]}
    assert by_id[1]["primary"]
    assert by_id[1]["obstacles"][0]["code"] == "conflict"
    assert by_id[2]["obstacles"] == []
    assert any("lease" in line for line in data["inputs"])


def test_a_daemon_that_does_not_coordinate_explains_its_own_picture(api: Api) -> None:
    api.service.story = with_view(stories.healthy(), ready=False)
    data = api.get("/cluster/explain").data
    assert (data["coordinates"], data["now"]["rule"]) == (False, "primary_serving")


def test_explain_without_a_picture(api: Api) -> None:
    api.service.story = stories.healthy()
    answer = api.get("/cluster/explain")
    assert (answer.status, answer.body["error"]) == (503, "unavailable")


@pytest.mark.parametrize("body", [{"node_id": 3}, {"node_id": "node3"}])
def test_promote_is_a_failover_to_that_node(api: Api, body: dict[str, object]) -> None:
    data = api.post("/cluster/promote", body).data
    assert (data["node_promoted"], data["new_primary"], data["promotion_time_ms"]) == (3, 3, 412)
    (asked,) = api.service.asked
    assert isinstance(asked, FailoverRequest)
    assert asked.target == 3


def test_demote_is_a_failover_to_whoever_is_best(api: Api) -> None:
    data = api.post("/cluster/demote", {"node_id": "primary"}).data
    assert (data["node_demoted"], data["old_primary"], data["new_primary"]) == (1, 1, 2)
    (asked,) = api.service.asked
    assert isinstance(asked, FailoverRequest)
    assert asked.target is None


def test_only_the_primary_is_demoted(api: Api) -> None:
    answer = api.post("/cluster/demote", {"node_id": 2})
    assert (answer.status, answer.body["error"]) == (409, "conflict")
    assert "node 1" in answer.body["message"]
    state = replace(api.service.story.state, reigns=())
    api.service.story = replace(api.service.story, state=state)
    answer = api.post("/cluster/demote", {"node_id": 2})
    assert "there is none" in answer.body["message"]
    assert api.service.asked == []


@pytest.mark.parametrize("path", ["/promote/3", "/cluster/promote/node3"])
def test_promote_by_path(api: Api, path: str) -> None:
    assert api.post(path).data["node_promoted"] == 3


@pytest.mark.parametrize("path", ["/demote/1", "/cluster/demote/primary"])
def test_demote_by_path(api: Api, path: str) -> None:
    assert api.post(path).data["node_demoted"] == 1


@pytest.mark.parametrize("body", [{}, {"node_id": 0}, {"node_id": 9.5}, {"node": 1}])
def test_a_node_must_be_named(api: Api, body: dict[str, object]) -> None:
    answer = api.post("/cluster/promote", body)
    assert (answer.status, answer.body["error"]) == (400, "invalid_field")


def test_every_obstacle_is_in_the_answer(api: Api) -> None:
    obstacles = (
        Obstacle(code="busy", reason="one is under way", accepted="one at a time"),
        Obstacle(code="no_candidate", node_id=3, reason="it is tagged", accepted="another one"),
    )
    api.service.fails = Refused("both", code="busy", obstacles=obstacles)
    answer = api.post("/cluster/failover", {"target_node": 3})
    assert answer.status == 409
    assert [one["code"] for one in answer.body["obstacles"]] == ["busy", "no_candidate"]
    assert answer.body["obstacles"][1]["node_id"] == 3
