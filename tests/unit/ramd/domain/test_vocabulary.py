"""The little behaviour that the vocabulary has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramd.domain.consensus import REASON_CHARS_MAX, ReleaseEvidence
from ramd.domain.errors import (
    CODES,
    ConfigError,
    OutcomeUnknown,
    PeerError,
    PostgresError,
    RamdError,
    Refused,
    Unavailable,
)
from ramd.domain.lsn import LSN_MAX, Lsn, format_lsn, parse_lsn
from ramd.domain.model import ClusterState, Member, Reign, StartMode
from ramd.domain.observation import Attempt, Heard, Observation, Position
from ramd.domain.server import ControlState, StopMode
from ramd.domain.service import DaemonFacts, Snapshot


def member(node_id: int) -> Member:
    return Member(
        node_id=node_id,
        name=f"node{node_id}",
        hostname="h",
        postgresql_port=1,
        raft_port=2,
        http_port=3,
    )


# --- LSN ---------------------------------------------------------------------------------------


def test_an_lsn_reads_as_postgresql_prints_it() -> None:
    assert parse_lsn("16/B374D848") == 0x16_B374D848
    assert format_lsn(Lsn(0x16_B374D848)) == "16/B374D848"
    assert parse_lsn(" 0/0\n") == 0
    # From version 19 on with eight low digits.
    assert parse_lsn("0/000001F4") == parse_lsn("0/1F4") == 500


@given(st.integers(0, LSN_MAX))
def test_an_lsn_survives_its_text(lsn: int) -> None:
    assert parse_lsn(format_lsn(Lsn(lsn))) == lsn


@pytest.mark.parametrize(
    "text", ["", "/", "0", "0/", "/0", "0/G", "x/0", "123456789/0", "0/123456789", "0/0/0"]
)
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_lsn(text)


# --- errors ------------------------------------------------------------------------------------


def test_every_error_has_a_code_of_the_table() -> None:
    kinds = (ConfigError, Refused, PeerError, PostgresError, Unavailable, OutcomeUnknown)
    codes = {kind("why").code for kind in (*kinds, RamdError)}
    assert codes == {
        "config",
        "conflict",
        "peer",
        "postgres",
        "unavailable",
        "unknown_outcome",
        "internal",
    }
    assert codes <= CODES.keys()


def test_an_error_carries_its_remedy() -> None:
    error = Refused("node 2 is silent", code="no_candidate", hint="start it", field="target")
    assert str(error) == error.message == "node 2 is silent"
    assert (error.code, error.hint, error.field) == ("no_candidate", "start it", "target")
    with pytest.raises(AssertionError, match="unknown error code"):
        Refused("x", code="no_such_code")


def test_codes_map_to_errors_of_http_and_of_a_shell() -> None:
    assert all(400 <= code.http_status < 600 for code in CODES.values())
    assert all(0 < code.exit_code < 100 and code.meaning for code in CODES.values())


# --- model -------------------------------------------------------------------------------------


def test_a_blank_state_is_no_cluster() -> None:
    state = ClusterState()
    assert not state.formed
    assert state.reign is None
    assert state.epoch == 0
    assert state.member(1) is None


def test_the_last_reign_is_the_present_one() -> None:
    reigns = tuple(Reign(epoch=e, node_id=e, timeline=e, start=StartMode.PROMOTE) for e in (1, 2))
    state = ClusterState(cluster_id="c", members=(member(1), member(2)), reigns=reigns)
    assert state.formed
    assert state.reign == reigns[1]
    assert state.epoch == 2
    assert state.member(2) == member(2)


def test_attempts_are_ordered_by_term_and_then_number() -> None:
    keys = [Attempt(term=t, number=n).key() for t, n in ((1, 9), (2, 0), (2, 1))]
    assert keys == sorted(keys)


def test_words_of_the_server_are_its_own() -> None:
    assert StopMode("fast") is StopMode.FAST
    assert ControlState("shut_down_in_recovery") is ControlState.SHUT_DOWN_IN_RECOVERY


# --- evidence of a release ---------------------------------------------------------------------


def test_the_evidence_of_a_release_survives_the_wire() -> None:
    at = Position(timeline=3, lsn=Lsn(LSN_MAX))
    for evidence in (
        ReleaseEvidence(reason="crashed", end=at),
        ReleaseEvidence(reason="crashed", end=None),
    ):
        assert ReleaseEvidence.decode(evidence.encode()) == evidence
    long = ReleaseEvidence(reason="x" * 999)
    assert len(ReleaseEvidence.decode(long.encode()).reason) == REASON_CHARS_MAX


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"{}", b'{"reason": "x", "end": {}}', b'{"reason": 1, "end": 5}']
)
def test_broken_evidence_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ReleaseEvidence.decode(raw)


# --- snapshot ----------------------------------------------------------------------------------


def test_a_snapshot_finds_nodes_and_counts_the_lease_down() -> None:
    heard = Heard(observation=Observation(node_id=2, boot=1, taken_ns=5), received_ns=7)
    reign = Reign(epoch=4, node_id=1, timeline=1, start=StartMode.OPEN)
    snapshot = Snapshot(
        taken_ns=0,
        daemon=DaemonFacts(version="1", node_id=1, name="node1", started_ns=0),
        state=ClusterState(reigns=(reign,)),
        heard=(heard,),
        lease_epoch=4,
        lease_deadline_ns=5_000_000,
    )
    assert snapshot.of(2) == heard
    assert snapshot.of(1) is None
    assert snapshot.lease_left_ms(2_000_000) == 3
    assert snapshot.lease_left_ms(9_000_000) == 0


@pytest.mark.parametrize(("epoch", "deadline_ns"), [(3, 5_000_000), (4, 0)])
def test_a_lease_of_another_epoch_or_none_is_nothing(epoch: int, deadline_ns: int) -> None:
    reign = Reign(epoch=4, node_id=1, timeline=1, start=StartMode.OPEN)
    snapshot = Snapshot(
        taken_ns=0,
        daemon=DaemonFacts(version="1", node_id=1, name="node1", started_ns=0),
        state=ClusterState(reigns=(reign,)),
        lease_epoch=epoch,
        lease_deadline_ns=deadline_ns,
    )
    assert snapshot.lease_left_ms(1) == 0
