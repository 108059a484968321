"""Who is a member of a started group: its id, its roster, and which of two records is later."""

from dataclasses import replace

import pytest

from pgraft.core.types import Config, Index, NodeId, PeerRecord
from pgraft.identity import FoundingRecord, Identity, JoinRequest, Stage
from pgraft.net.hello import Hello, hello_of
from pgraft.net.judge import Presence, Roster, judge, standing


def peer(node: int, since: int = 0, uuid: str = "") -> PeerRecord:
    uuid = (uuid or str(node)) * 32
    return PeerRecord(node=NodeId(node), uuid=uuid, address=f"h{node}:1", since=Index(since))


def record(*peers: PeerRecord) -> FoundingRecord:
    voters = frozenset(p.node for p in peers if p.since == 0)
    config = Config(voters=voters, learners=frozenset(p.node for p in peers) - voters, peers=peers)
    return FoundingRecord.of(config, cluster_id="c" * 32, cluster_name="prod")


FOUNDING = (peer(1), peer(2), peer(3))


def member(own: PeerRecord, *others: PeerRecord) -> Identity:
    return Identity(
        node=own.node,
        uuid=own.uuid,
        cluster_name="prod",
        founders=(),
        stage=Stage.STARTED,
        record=record(own, *others),
    )


def hello(identity: Identity) -> Hello:
    return hello_of(identity, b"", NodeId(0))


def code(
    theirs: Identity, roster: Roster, mine: Identity | None = None, *, late: bool = False
) -> str:
    presence = Presence(identity=mine or member(*FOUNDING), roster=roster)
    refuse = judge(presence, hello(theirs))
    if refuse is None and late:
        refuse = standing(presence, hello(theirs))
    return "" if refuse is None else refuse.code


def test_founding_lists_do_not_matter_any_more_once_started() -> None:
    joined = member(peer(4, 10), peer(2), peer(3))
    roster = Roster.of([*FOUNDING, peer(4, 10)])
    assert code(joined, roster) == ""
    assert code(replace(joined, record=replace(record(peer(4, 10)), cluster_id="d" * 32)), roster)


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (peer(2), ""),
        (peer(2, 0, "f"), "member_uuid"),
        (peer(4, 10), ""),
        (peer(4, 10, "f"), "member_uuid"),
        (peer(4, 9, "f"), "member_uuid"),
        (peer(4, 11, "f"), ""),
        (peer(5, 0), "unknown_member"),
        (peer(5, 10), "unknown_member"),
        (peer(5, 11), ""),
    ],
)
def test_the_later_of_two_records_counts_and_a_lagging_member_takes_what_is_newer(
    theirs: PeerRecord, expected: str
) -> None:
    roster = Roster.of([*FOUNDING, peer(4, 10)])
    assert roster.newest == 10
    assert code(member(theirs), roster) == expected


def test_a_removed_member_passes_to_the_proof_and_is_told_then() -> None:
    roster = Roster.of([peer(1), peer(3)], ["2" * 32])
    assert code(member(peer(2)), roster) == ""
    assert code(member(peer(2)), roster, late=True) == "removed"
    assert code(member(peer(3)), roster, late=True) == ""


def test_a_founder_that_missed_the_start_is_taken_whatever_happened_to_the_group_since() -> None:
    straggler = replace(member(*FOUNDING), node=NodeId(3), uuid="3" * 32, stage=Stage.RECORDED)
    joined = member(peer(4, 10), *FOUNDING)
    assert code(straggler, Roster.of(FOUNDING), joined) == ""
    assert code(joined, Roster.of(FOUNDING), straggler) == ""


def test_a_record_is_the_configuration_and_back() -> None:
    made = record(*FOUNDING, peer(4, 10))
    assert made.config().voters == {1, 2, 3}
    assert made.config().learners == {4}
    assert made.config().peers == (*FOUNDING, peer(4, 10))
    again = FoundingRecord.of(made.config(), cluster_id="c" * 32, cluster_name="prod")
    assert again == made
    assert member(peer(4, 10), *FOUNDING).since == 10
    assert member(*FOUNDING).since == 0


@pytest.mark.parametrize(
    "bad",
    [
        {"node": NodeId(0)},
        {"token": bytes(257)},
        {"address": ""},
        {"address": "h" * 256},
    ],
)
def test_a_request_that_no_honest_member_makes_is_none(bad: dict[str, object]) -> None:
    good = JoinRequest(node=NodeId(4), uuid="4" * 32, address="h4:1", token=b"t")
    with pytest.raises(ValueError, match=r"node|characters"):
        replace(good, **bad)  # type: ignore[arg-type]
