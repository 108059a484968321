"""GET /quorum/status and POST /quorum/recover, and what ramctrl makes of them."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ramd.domain.errors import Refused
from ramd.domain.observation import RaftMark
from ramd.domain.quorum import RecoverRequest
from ramd.domain.service import Snapshot
from tests.api import stories
from tests.api.harness import Api, serving
from tests.unit.ramctrl.cli import Ran, ramctrl


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with serving() as served:
        yield served


@pytest.fixture(autouse=True)
def afresh(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    api.service.story = stories.healthy()
    api.service.fails = None
    api.service.asked.clear()


def run(api: Api, *arguments: str) -> Ran:
    return ramctrl(*arguments, "--port", str(api.port))


def marked(snapshot: Snapshot) -> Snapshot:
    """Every node has said where its member stands."""
    mark = RaftMark(role="follower", term=3, commit_index=9, applied_index=8)
    seen = (replace(h, observation=replace(h.observation, raft=mark)) for h in snapshot.heard)
    return replace(snapshot, heard=tuple(seen))


def test_the_coordinator_knows_how_far_everybody_is(api: Api) -> None:
    api.service.story = marked(stories.healthy(me=2))
    data = api.get("/quorum/status").data
    assert data["cluster_status"] == "healthy"
    assert (data["voters_reachable"], data["voters"], data["majority"]) == (3, 3, 2)
    assert data["answered_by_node_id"] == data["leader_node_id"] == 2
    members = {member["id"]: member for member in data["members"]}
    assert [members[n]["match_index"] for n in (1, 2, 3)] == [9, 9, 8]
    assert [members[n]["last_contact_ms"] for n in (1, 2, 3)] == [20, 0, 40]
    assert members[3]["applied_index"] == 8
    assert members[2]["raft_role"] == "leader"
    assert data["disk_sync"] == {"p50_ms": 0.5, "p99_ms": 4.0, "max_ms": 30.25}
    assert [one["age_ms"] for one in data["elections"]] == [60_000, 90_000]
    assert data["elections_begun"] == {"timeout": 2}
    assert data["connections_refused"] == {"secret": 1}


def test_another_member_says_what_it_knows_and_who_knows_more(api: Api) -> None:
    data = api.get("/quorum/status").data
    assert (data["answered_by_node_id"], data["leader_node_id"]) == (1, 2)
    assert all(member["match_index"] is None for member in data["members"])
    assert {m["id"]: m["last_contact_ms"] for m in data["members"]} == {1: 0, 2: 30, 3: None}
    assert "only node 2 knows" in run(api, "quorum", "status").out


def test_a_lost_member_a_change_and_a_lost_majority(api: Api) -> None:
    api.service.story = story = stories.healthy(me=2)
    assert story.group is not None
    facts = stories.raft(2)
    gone = replace(facts.peers[1], connected=False, contact_ns=stories.NOW_NS - 9 * 10**9)
    degraded = replace(facts, peers=(facts.peers[0], gone))
    cases = [
        (replace(story, group=replace(story.group, raft=degraded)), 1, "not in touch: node3"),
        (
            replace(story, group=replace(story.group, raft=replace(facts, outgoing=(1, 2)))),
            1,
            "a change of the voters is under way",
        ),
        (
            replace(story, group=replace(story.group, raft=replace(facts, voters=(1, 2)))),
            1,
            "members that the group does not hold: node3",
        ),
        (stories.alone(me=3), 2, "no quorum: 1 of 3 voters in touch, 2 are needed"),
    ]
    for snapshot, code, reason in cases:
        api.service.story = snapshot
        ran = run(api, "quorum", "status")
        assert ran.code == code
        assert reason in ran.out


def test_status_as_a_table_and_for_machines(api: Api) -> None:
    api.service.story = marked(stories.healthy(me=2))
    table = run(api, "quorum", "status")
    assert table.code == 0
    assert "3/3 voters in touch, 2 needed" in table.out
    assert "sync 0.5 ms (median), 4.0 ms (99 %), 30.2 ms (longest)" in table.out
    assert "60 s ago, term 3: campaign" in table.out
    assert "1 entries behind" in table.out
    assert '"voters_reachable": 3' in run(api, "--json", "quorum", "status").out
    assert "voters_reachable: 3" in run(api, "--format", "yaml", "quorum", "status").out


def test_before_a_cluster_there_is_no_group(api: Api) -> None:
    api.service.story = stories.clusterless()
    assert api.get("/quorum/status").status == 409
    api.service.story = replace(stories.healthy(), group=None)
    answer = api.get("/quorum/status")
    assert (answer.status, answer.body["error"]) == (503, "unavailable")


def test_recover_shows_the_plan_and_does_nothing(api: Api) -> None:
    ran = run(api, "quorum", "recover")
    assert ran.code == 0
    assert api.service.asked == [RecoverRequest(actor="api 127.0.0.1")]
    assert "nothing was done" in ran.out
    assert "whether its last 1 entries were committed is not known" in ran.out
    assert "at least 4.0 kB that node 1 was seen to hold; more is not known" in ran.out
    assert "--yes --cluster-name demo --confirmed-off node1,node2" in ran.out


def test_recover_with_everything_confirmed(api: Api) -> None:
    ran = run(
        api,
        *("quorum", "recover", "--yes", "--cluster-name", "demo"),
        *("--confirmed-off", "node2,3", "--force"),
    )
    assert ran.code == 0
    wanted = RecoverRequest(
        apply=True, cluster_name="demo", confirmed_off=(2, 3), learner=True, actor="api 127.0.0.1"
    )
    assert api.service.asked[1:] == [wanted]
    assert "node 3 goes on alone and accepts writes" in ran.out
    assert "The group's new id is beef" in ran.out


def test_recover_asks_nobody_where_there_is_no_terminal(api: Api) -> None:
    for given, missing in (
        (("--confirmed-off", "1,2"), "add --cluster-name"),
        (("--cluster-name", "demo"), "add --confirmed-off"),
    ):
        ran = run(api, "quorum", "recover", "--yes", *given)
        assert ran.code == 2
        assert missing in ran.err
    assert not [one for one in api.service.asked if isinstance(one, RecoverRequest) and one.apply]


class Terminal(io.StringIO):
    """Standard input with somebody in front of it."""

    def isatty(self) -> bool:
        return True


def test_recover_asks_for_name_and_hosts_on_a_terminal(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("demo\ny\ny\n"))
    ran = run(api, "quorum", "recover", "--yes")
    assert ran.code == 0, ran.err
    asked = api.service.asked[-1]
    assert isinstance(asked, RecoverRequest)
    assert (asked.cluster_name, asked.confirmed_off, asked.apply) == ("demo", (1, 2), True)
    assert "Given up for ever: node1, node2" in ran.err


def test_one_host_that_is_not_off_ends_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("demo\ny\nn\n"))
    assert run(api, "quorum", "recover", "--yes").code != 0
    assert not [one for one in api.service.asked if isinstance(one, RecoverRequest) and one.apply]


def test_a_refusal_is_told_with_its_remedy(api: Api) -> None:
    api.service.fails = Refused("there is a quorum: node 2 coordinates", hint="no need")
    ran = run(api, "quorum", "recover")
    assert ran.code == 5
    assert "there is a quorum" in ran.err


def test_who_is_off_must_be_a_member(api: Api) -> None:
    answer = api.post("/quorum/recover", {"apply": True, "confirmed_off": ["node9"]})
    assert answer.status == 404
    assert answer.body["details"]["field"] == "confirmed_off"
    assert api.service.asked == []
