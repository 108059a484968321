"""What people ask about members: carried out, or refused by name with the group unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ramd.config.load import load_text
from ramd.domain.consensus import MemberChange
from ramd.domain.decision import Voting
from ramd.domain.errors import OutcomeUnknown, RamdError, Refused, Unavailable
from ramd.domain.model import ClusterState
from ramd.domain.service import AddNodeRequest, AddVoterRequest, RemoveNodeRequest
from ramd.members import orders, token
from ramd.state.apply import apply
from ramd.state.member_commands import AdmitMember, DropMember, KeepMember
from tests.support.member_desk import NOW_MS, SECRET, Office, local


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(local(), tmp_path)


def several_hosts(tmp_path: Path) -> Office:
    state = local()
    known = tuple(replace(m, hostname=f"db{m.node_id}.example.org") for m in state.members)
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123456789abcdef\n")
    secret.chmod(0o600)
    conf = {
        "hostname": "db1.example.org",
        "cluster_secret_file": secret,
        "postgresql_password": "x",
    }
    return Office(replace(state, members=known), tmp_path, **conf)


async def refused(office: Office, request: AddNodeRequest) -> Refused:
    before = office.book.cluster
    with pytest.raises(Refused) as caught:
        await orders.add_node(office.desk, request)
    assert office.book.cluster == before
    assert office.book.proposed == []
    return caught.value


# --- add -------------------------------------------------------------------------------------


async def test_what_is_left_out_is_chosen(office: Office) -> None:
    result = await orders.add_node(office.desk, AddNodeRequest(actor="api"))
    new = result.member
    assert (new.node_id, new.name, new.hostname) == (4, "node4", "localhost")
    assert (new.postgresql_port, new.raft_port, new.http_port) == (5434, 7404, 8004)
    found = office.book.cluster.invitation(4)
    assert found is not None
    assert found.expires_unix_ms == result.expires_unix_ms == NOW_MS + orders.INVITATION_MS
    assert found.requested_by == "api"


async def test_the_answer_is_a_token_and_a_file_that_loads(office: Office, tmp_path: Path) -> None:
    result = await orders.add_node(office.desk, AddNodeRequest(node_id=5, nofailover=True))
    state = office.book.cluster
    assert (
        token.refusal(
            result.token,
            node_id=5,
            address="localhost:7405",
            state=state,
            secret=SECRET,
            now_unix_ms=NOW_MS,
        )
        == ""
    )
    for name, text in (("secret", SECRET.decode()), ("token", result.token)):
        (tmp_path / name).write_text(text + "\n")
        (tmp_path / name).chmod(0o600)
    lines = [
        f"join_token_file = {tmp_path}/token" if line.startswith("join_token_file") else line
        for line in result.conf
    ]
    config = load_text("\n".join(lines) + "\n", {})
    assert config.own_member() == result.member
    assert config.join == ("localhost:7401", "localhost:7402", "localhost:7403")
    assert config.cluster_name == "demo"
    assert config.auth_method == "trust"
    assert config.postgresql_data_dir == tmp_path / "node5"


async def test_a_node_on_another_host_gets_the_same_ports(tmp_path: Path) -> None:
    office = several_hosts(tmp_path)
    request = AddNodeRequest(hostname="db4.example.org", priority=70, replaces=3)
    result = await orders.add_node(office.desk, request)
    assert result.member.postgresql_port == 5431
    assert "node_priority = 70" in result.conf
    joins = next(line for line in result.conf if line.startswith("join ="))
    assert "db1.example.org:7401" in joins
    assert "db3" not in joins  # it is the dead one
    assert "auth_method = scram-sha-256" in result.conf
    assert not [line for line in result.conf if "password" in line]


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (AddNodeRequest(node_id=3), "node 3 is a member: the id is used"),
        (AddNodeRequest(name="node2"), "is not usable as a name"),
        (AddNodeRequest(name="primary"), "is not usable as a name"),
        (AddNodeRequest(name="replica1"), "is not usable as a name"),
        (AddNodeRequest(name="7"), "is not usable as a name"),
        (AddNodeRequest(name="a b"), "is not usable as a name"),
        (AddNodeRequest(postgresql_port=5432), "port 5432 on localhost is node 2's: it is used"),
        (AddNodeRequest(raft_port=8003), "port 8003 on localhost is node 3's: it is used"),
        (AddNodeRequest(hostname="db4.example.org"), "every member is reached at loopback only"),
        (AddNodeRequest(hostname="not a host"), "neither an IP address nor a host name"),
        (AddNodeRequest(replaces=1), "node 1 is the primary: switch over"),
        (AddNodeRequest(replaces=8), "node 8 is not a member: there is nobody to replace"),
    ],
)
async def test_who_cannot_be_added(office: Office, request_: AddNodeRequest, why: str) -> None:
    assert why in (await refused(office, request_)).message


async def test_a_used_name_is_refused(office: Office) -> None:
    state = office.book.cluster
    named = (replace(state.members[0], name="paris"), *state.members[1:])
    office.book.cluster = replace(state, members=named)
    error = await refused(office, AddNodeRequest(name="paris"))
    assert error.message == "the name 'paris' is node 1's: it is used"


async def test_loopback_means_nothing_among_several_hosts(tmp_path: Path) -> None:
    office = several_hosts(tmp_path)
    error = await refused(office, AddNodeRequest(hostname="127.0.0.1"))
    assert "means another host on every host" in error.message
    assert error.field == "hostname"


async def test_there_are_nine_members_at_the_most(tmp_path: Path) -> None:
    office = Office(local(9), tmp_path)
    error = await refused(office, AddNodeRequest())
    assert error.message == "every node id from 1 to 9 is used"


async def test_two_people_at_once_do_not_get_one_node(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await orders.add_node(office.desk, AddNodeRequest(node_id=4))

    propose = office.book.propose

    async def overtaken(command: bytes, *, timeout_s: float) -> None:
        """Another invitation of the same node is committed right after."""
        await propose(command, timeout_s=timeout_s)
        theirs = replace(office.book.cluster.invitations[-1], nonce="somebody-else")
        office.book.cluster = replace(office.book.cluster, invitations=(theirs,))

    monkeypatch.setattr(office.book, "propose", overtaken)
    with pytest.raises(Refused, match="invited by somebody else"):
        await orders.add_node(office.desk, AddNodeRequest(node_id=4))
    assert first.member.node_id == 4


async def test_without_a_quorum_nothing_is_added(office: Office) -> None:
    office.book.unread = True
    with pytest.raises(Unavailable):
        await orders.add_node(office.desk, AddNodeRequest())


# --- remove ----------------------------------------------------------------------------------


async def removal(office: Office, node_id: int) -> RamdError:
    before = office.book.cluster
    with pytest.raises(RamdError) as caught:
        await orders.remove_node(office.desk, RemoveNodeRequest(node_id=node_id), timeout_s=1.0)
    assert office.book.cluster.members == before.members
    return caught.value


async def test_a_removed_node_is_gone_when_it_is_answered(office: Office) -> None:
    async def until(check: object) -> object:
        """The coordinator does its part."""
        office.book.cluster = apply(office.book.cluster, DropMember(node_id=3), 90)
        return await office.until(check)

    desk = replace(office.desk, until=until)
    result = await orders.remove_node(desk, RemoveNodeRequest(node_id=3), timeout_s=1.0)
    assert (result.node_id, result.name, result.withdrawn) == (3, "node3", False)


async def test_who_cannot_be_removed(office: Office) -> None:
    assert "is the primary: switch over" in (await removal(office, 1)).message
    missing = await removal(office, 8)
    assert missing.code == "not_found"
    office.silent = {3}
    assert "remove a dead one instead" in (await removal(office, 2)).message
    office.book.voting = Voting(voters=(2,), learners=(1, 3), settled=True)
    assert (await removal(office, 2)).message == "node 2 is the last voter"
    office.book.quorum = False
    assert (await removal(office, 3)).code == "no_quorum"
    assert office.book.proposed == []


async def test_a_removal_that_the_coordinator_gives_up_says_why(office: Office) -> None:
    async def until(check: object) -> object:
        kept = KeepMember(node_id=3, reason="too few would be left")
        office.book.cluster = apply(office.book.cluster, kept, 90)
        return await office.until(check)

    office.desk = replace(office.desk, until=until)
    error = await removal(office, 3)
    assert error.message == "node 3 is not removed: too few would be left"


async def test_who_became_primary_meanwhile_is_not_removed(office: Office) -> None:
    async def until(check: object) -> object:
        office.book.cluster = replace(office.book.cluster, departures=())
        return await office.until(check)

    office.desk = replace(office.desk, until=until)
    error = await removal(office, 3)
    assert error.message == "node 3 is not removed: it has become the primary"


async def test_a_removal_that_takes_too_long_is_unknown(office: Office) -> None:
    error = await removal(office, 3)
    assert isinstance(error, OutcomeUnknown)
    assert "is marked as leaving" in error.message
    assert (await removal(office, 2)).message == "node 3 is being removed already"


async def test_a_node_that_removes_itself_is_told_by_its_group(office: Office) -> None:
    office.book.me = 3
    office.book.removed = "its own log says so"
    result = await orders.remove_node(office.desk, RemoveNodeRequest(node_id=3), timeout_s=1.0)
    assert result.node_id == 3


async def test_who_was_only_invited_may_join_no_more(office: Office) -> None:
    await orders.add_node(office.desk, AddNodeRequest(node_id=4))
    result = await orders.remove_node(office.desk, RemoveNodeRequest(node_id=4), timeout_s=1.0)
    assert result.withdrawn
    assert office.book.cluster.invitations == ()


# --- vote ------------------------------------------------------------------------------------


def with_learner(state: ClusterState, office: Office) -> None:
    office.book.cluster = state
    nonce = state.invitations[-1].nonce
    office.book.cluster = apply(state, AdmitMember(nonce=nonce), 91)
    office.book.voting = replace(office.book.voting, learners=(4,))


async def test_a_vote_for_a_learner_that_has_caught_up(office: Office) -> None:
    await orders.add_node(office.desk, AddNodeRequest(node_id=4))
    with_learner(office.book.cluster, office)
    result = await orders.add_voter(office.desk, AddVoterRequest(node_id=4), timeout_s=1.0)
    assert result.voters == (1, 2, 3, 4)
    assert office.book.changes == [MemberChange(promote=(4,))]


async def test_a_learner_that_is_behind_gets_no_vote(office: Office) -> None:
    await orders.add_node(office.desk, AddNodeRequest(node_id=4))
    with_learner(office.book.cluster, office)
    office.behind = {4}
    with pytest.raises(Refused, match="node 4 is behind: it does not stream from node 1 yet"):
        await orders.add_voter(office.desk, AddVoterRequest(node_id=4), timeout_s=1.0)
    with pytest.raises(Refused, match="node 3 votes already"):
        await orders.add_voter(office.desk, AddVoterRequest(node_id=3), timeout_s=1.0)
    assert office.book.changes == []


async def test_an_eighth_voter_is_refused(tmp_path: Path) -> None:
    office = Office(local(8), tmp_path)
    office.book.voting = Voting(voters=tuple(range(1, 8)), learners=(8,), settled=True)
    with pytest.raises(Refused, match="7 voters, which are the most: node 8 stays a learner"):
        await orders.add_voter(office.desk, AddVoterRequest(node_id=8), timeout_s=1.0)
    assert office.book.changes == []
