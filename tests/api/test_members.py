"""Members over HTTP: what reaches the service, and everything that is refused by name while the
group stays as it is (over real orders and the real rules)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ramd.domain.decision import Voting
from ramd.domain.model import Reinit
from ramd.domain.service import (
    AddNodeRequest,
    AddNodeResult,
    AddVoterRequest,
    AddVoterResult,
    ReinitRequest,
    ReinitResult,
    RemoveNodeRequest,
    RemoveNodeResult,
    Snapshot,
)
from ramd.members import anew, orders
from ramd.state.apply import apply
from ramd.state.member_commands import AdmitMember
from tests.api.harness import Api, FakeService, serving
from tests.api.stories import healthy
from tests.support.member_desk import NOW_NS, Office, local
from tests.unit.ramctrl.cli import ramctrl

ADD, REMOVE, VOTE = "/cluster/add-node", "/cluster/remove-node", "/cluster/add-voter"


@pytest.fixture(scope="module")
def served() -> Iterator[Api]:
    with serving() as api:
        yield api


@pytest.fixture
def api(served: Api) -> Api:
    served.service.story = healthy()
    served.service.fails = served.service.hold = None
    served.service.asked.clear()
    return served


def test_add_node(api: Api) -> None:
    body = {
        "node_id": 4,
        "hostname": "127.0.0.1",
        "port": 6000,
        "raft_port": 6001,
        "http_port": 6002,
        "name": "paris",
        "priority": 70,
        "nofailover": True,
        "replace": "node3",
    }
    answer = api.post(ADD, body)
    assert answer.status == 201
    (asked,) = api.service.asked
    assert isinstance(asked, AddNodeRequest)
    assert replace(asked, actor="") == AddNodeRequest(
        node_id=4,
        hostname="127.0.0.1",
        postgresql_port=6000,
        raft_port=6001,
        http_port=6002,
        name="paris",
        priority=70,
        nofailover=True,
        replaces=3,
    )
    assert asked.actor.startswith("api ")
    assert answer.data["join_token"] == "ramd1.the.token"
    assert answer.data["expires_at"] == "2023-11-14T22:13:20.000Z"
    assert answer.data["replaces_node_id"] == 3
    assert answer.data["conf"][0] == "cluster_name = demo"


def test_everything_about_a_new_node_may_be_left_out(api: Api) -> None:
    assert api.post(ADD).status == 201
    assert api.post("/replica/add", {"hostname": "127.0.0.1", "port": 6000}).status == 201


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"node_id": 10}, "node_id"),
        ({"node_id": "4"}, "node_id"),
        ({"port": 0}, "port"),
        ({"priority": 101}, "priority"),
        ({"hostname": ""}, "hostname"),
        ({"host": "db4"}, "host"),
        ({"replace": "nobody"}, "replace"),
    ],
)
def test_a_wrong_field_is_named(api: Api, body: dict[str, Any], field: str) -> None:
    answer = api.post(ADD, body)
    assert answer.status in (400, 404)
    assert answer.body["details"]["field"] == field
    assert api.service.asked == []


@pytest.mark.parametrize(
    ("body", "node_id"),
    [
        ({"node_id": 3}, 3),
        ({"name": "node2"}, 2),
        ({"name": "replica2"}, 3),
        ({"node_address": "127.0.0.1:5433"}, 2),
    ],
)
@pytest.mark.parametrize("path", [REMOVE, "/replica/remove"])
def test_remove_node(api: Api, path: str, body: dict[str, Any], node_id: int) -> None:
    answer = api.post(path, body)
    assert answer.data == {
        "node_removed": node_id,
        "name": f"node{node_id}",
        "invitation_withdrawn": False,
    }
    (asked,) = api.service.asked
    assert isinstance(asked, RemoveNodeRequest)
    assert asked.node_id == node_id


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "node_id"),
        ({"node_id": 3, "name": "node3"}, 400, "name"),
        ({"name": "nobody"}, 404, "name"),
        ({"node_address": "127.0.0.1"}, 409, "node_address"),
        ({"node_address": "db9:5432"}, 404, "node_address"),
    ],
)
def test_who_is_meant_must_be_clear(
    api: Api, body: dict[str, Any], status: int, field: str
) -> None:
    answer = api.post(REMOVE, body)
    assert answer.status == status
    assert answer.body["details"]["field"] == field
    assert api.service.asked == []


@pytest.mark.parametrize(("node", "node_id"), [("3", 3), ("node2", 2), ("replica2", 3)])
def test_reinit(api: Api, node: str, node_id: int) -> None:
    answer = api.post(f"/nodes/{node}/reinit")
    assert answer.body["message"] == f"node {node_id} holds a new copy"
    assert answer.data == {
        "node_reinitialized": node_id,
        "name": f"node{node_id}",
        "done": True,
        "activity": "",
    }
    (asked,) = api.service.asked
    assert isinstance(asked, ReinitRequest)
    assert asked.node_id == node_id


def test_a_reinit_that_goes_on_is_shown(api: Api) -> None:
    order = Reinit(node_id=3, copy="3a")
    api.service.story = replace(
        api.service.story, state=replace(api.service.story.state, reinits=(order,))
    )
    answer = api.post("/nodes/3/reinit")
    assert answer.body["message"] == "node 3 is being made anew"
    assert (answer.data["done"], answer.data["activity"]) == (False, "cloning from node 1")
    assert api.get("/nodes/3").data["reinit"] is True
    assert api.get("/nodes/2").data["reinit"] is False
    ran = ramctrl("nodes", "reinit", "3", "--port", str(api.port))
    assert (
        ran.out.splitlines()[0]
        == "rejoining: node 3 (node3) is being made anew: cloning from node 1"
    )
    assert "ramctrl nodes show 3" in ran.out


def test_reinit_of_nobody(api: Api) -> None:
    answer = api.post("/nodes/nobody/reinit")
    assert (answer.status, answer.body["details"]["field"]) == (404, "node_id")
    assert api.post("/nodes/3/reinit", {"force": True}).status == 400
    assert api.service.asked == []
    assert ramctrl("nodes", "reinit", "--port", str(api.port)).code == 2


# --- over the real orders ----------------------------------------------------------------------


@dataclass
class RealOrders(FakeService):
    """Members by the real rules; everything else as in the stories."""

    story: Snapshot = field(default_factory=healthy)
    office: Office = field(init=False)

    def use(self, office: Office) -> None:
        self.office = office
        self.refresh()

    def refresh(self) -> None:
        story = healthy()
        group = story.group
        assert group is not None
        self.story = replace(
            story,
            state=self.office.book.cluster,
            group=replace(group, voting=self.office.book.voting),
        )

    async def add_node(self, request: AddNodeRequest, *, timeout_s: float) -> AddNodeResult:
        result = await orders.add_node(self.office.desk, request)
        self.refresh()
        return result

    async def remove_node(
        self, request: RemoveNodeRequest, *, timeout_s: float
    ) -> RemoveNodeResult:
        return await orders.remove_node(self.office.desk, request, timeout_s=timeout_s)

    async def add_voter(self, request: AddVoterRequest, *, timeout_s: float) -> AddVoterResult:
        return await orders.add_voter(self.office.desk, request, timeout_s=timeout_s)

    async def reinit(self, request: ReinitRequest, *, timeout_s: float) -> ReinitResult:
        return await anew.reinit(self.office.desk, request, timeout_s=timeout_s)


@pytest.fixture(scope="module")
def real_api() -> Iterator[Api]:
    with serving(RealOrders(now=NOW_NS)) as api:
        yield api


@pytest.fixture
def real(real_api: Api, tmp_path: Path) -> tuple[Api, Office]:
    office = Office(local(), tmp_path)
    assert isinstance(real_api.service, RealOrders)
    real_api.service.use(office)
    return real_api, office


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        (ADD, {"node_id": 2}, "node 2 is a member: the id is used"),
        (ADD, {"port": 5432}, "port 5432 on localhost is node 2's: it is used"),
        (ADD, {"name": "node1"}, "is not usable as a name"),
        (ADD, {"hostname": "db4"}, "every member is reached at loopback only"),
        (ADD, {"replace": 1}, "node 1 is the primary"),
        (REMOVE, {"node_id": 1}, "node 1 is the primary: switch over to another node first"),
        (VOTE, {"node_id": 2}, "node 2 votes already"),
        ("/nodes/primary/reinit", {}, "node 1 is the primary: switch over to another node first"),
    ],
)
def test_bad_orders_are_refused_by_name(
    real: tuple[Api, Office], path: str, body: dict[str, Any], why: str
) -> None:
    api, office = real
    before = office.book.cluster, office.book.voting
    answer = api.post(path, body)
    assert answer.status in (400, 409)
    assert why in answer.body["message"]
    assert (office.book.cluster, office.book.voting) == before
    assert office.book.changes == []


def test_the_last_voter_and_too_many_silent_ones(real: tuple[Api, Office]) -> None:
    api, office = real
    office.silent = {3}
    answer = api.post(REMOVE, {"node_id": 2})
    assert (answer.status, answer.body["error"]) == (409, "conflict")
    assert "only 1 of 2 voters would be in touch (silent: node 3)" in answer.body["message"]
    office.book.voting = Voting(voters=(2,), learners=(1, 3), settled=True)
    assert api.post(REMOVE, {"node_id": 2}).body["message"] == "node 2 is the last voter"


def test_learners_that_may_not_vote(real: tuple[Api, Office]) -> None:
    api, office = real
    assert api.post(ADD, {"node_id": 4}).status == 201
    nonce = office.book.cluster.invitations[0].nonce
    office.book.cluster = apply(office.book.cluster, AdmitMember(nonce=nonce), 90)
    office.book.voting = replace(office.book.voting, learners=(4,))
    office.behind = {4}
    assert isinstance(api.service, RealOrders)
    api.service.refresh()
    assert api.get("/nodes/4").data["vote"] == "learner"
    answer = api.post(VOTE, {"node_id": 4})
    assert (answer.status, answer.body["error"]) == (409, "conflict")
    assert "node 4 is behind" in answer.body["message"]
    office.book.voting = Voting(voters=(1, 2, 3, 5, 6, 7, 8), learners=(4,), settled=True)
    assert "7 voters, which are the most" in api.post(VOTE, {"node_id": 4}).body["message"]
    assert office.book.changes == []


def test_who_was_invited_can_be_taken_back_by_id_or_name(real: tuple[Api, Office]) -> None:
    api, office = real
    for body in ({"node_id": 4}, {"name": "node4"}):
        assert api.post(ADD, {"node_id": 4}).status == 201
        answer = api.post(REMOVE, body)
        assert answer.data["invitation_withdrawn"] is True
        assert office.book.cluster.invitations == ()


# --- ramctrl -----------------------------------------------------------------------------------


def test_ramctrl_makes_a_replica_anew(api: Api) -> None:
    ran = ramctrl("nodes", "reinit", "--node", "replica1", "--port", str(api.port))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[0] == "done: node 2 (node2) streams with a new copy"
    assert ".aside-" in ran.out


CONF_NOTE = (
    "Its ramd.conf (choose postgresql_data_dir; the secret file is a copy, mode 0600; the token"
    " goes into join_token_file, mode 0600):"
)
ADDED = f"""\
done: node 4 (node4) may join, in the place of node 3
address      127.0.0.1:5435
joins until  2023-11-14T22:13:20.000Z
join token   ramd1.the.token

{CONF_NOTE}
cluster_name = demo
join_token_file = /etc/ramd/node4.join_token
"""


def test_ramctrl_shows_what_to_do_on_the_new_node(api: Api) -> None:
    ran = ramctrl("nodes", "add", "--replace", "3", "--port", str(api.port))
    assert (ran.code, ran.err) == (0, "")
    assert [line.rstrip() for line in ran.out.splitlines()] == ADDED.splitlines()


def test_ramctrl_keeps_the_token_in_a_file_of_its_own(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "token"
    ran = ramctrl("node", "add", "--save-token", str(file), "--port", str(api.port))
    assert ran.code == 0
    assert "ramd1" not in ran.out
    assert f"join_token_file = {file}" in ran.out.replace("\n", "")
    assert file.read_text() == "ramd1.the.token\n"
    assert file.stat().st_mode & 0o777 == 0o600
    api.service.asked.clear()
    again = ramctrl("nodes", "add", "--save-token", str(file), "--port", str(api.port))
    assert again.code == 5
    assert "is not overwritten" in again.err
    assert api.service.asked == []
    lost = ramctrl("nodes", "add", "--save-token", "/nowhere/token", "--port", str(api.port))
    assert lost.code == 5
    assert "add it again" in lost.err


@pytest.mark.parametrize(
    "words",
    [("nodes", "remove", "3"), ("replica", "remove", "node3"), ("node", "remove", "-n", "3")],
)
def test_ramctrl_removes_by_id_or_name(api: Api, words: tuple[str, ...]) -> None:
    ran = ramctrl(*words, "--port", str(api.port))
    assert ran.code == 0
    assert ran.out.startswith("done: node 3 (node3) is no member any more\n")


def test_ramctrl_asks_which(api: Api) -> None:
    ran = ramctrl("nodes", "remove", "--port", str(api.port))
    assert ran.code == 2
    assert "which node?" in ran.err


def test_ramctrl_promotes_a_voter(api: Api) -> None:
    ran = ramctrl("nodes", "promote-voter", "3", "--port", str(api.port))
    assert ran.out == "done: node 3 votes\nvoters  1, 2, 3\n"
