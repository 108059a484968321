"""Values survive the wire; anything else is refused and never half-read."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramd.domain.decision import Directive
from ramd.domain.lsn import LSN_MAX, Lsn
from ramd.domain.model import (
    ClusterState,
    DecisionRecord,
    Handover,
    Invitation,
    Member,
    Phase,
    Reign,
    Reinit,
    Removal,
    Settings,
    StartMode,
)
from ramd.domain.observation import (
    Attempt,
    DataKind,
    Observation,
    Position,
    SealReport,
    ServerRole,
    ServerState,
)
from ramd.domain.sync import Stream, SyncGrant, SyncMember, SyncRecord, SyncSeen, SyncSet
from ramd.state.commands import (
    VERSION,
    CancelHandover,
    ChangeSettings,
    Command,
    DescribeMember,
    Destroy,
    GrantPayload,
    InitCluster,
    RecordDecision,
    RecordFork,
    RecordSystem,
    RequestHandover,
    UndecodableError,
    decode,
    decode_grant_payload,
    encode,
    encode_grant_payload,
)
from ramd.state.member_commands import (
    AdmitMember,
    DropMember,
    InviteMember,
    KeepMember,
    RemoveMember,
    WithdrawInvitation,
)
from ramd.state.phases import RecordPhases
from ramd.state.recovery import RecordRecovery
from ramd.state.reinit import EndReinit, OrderReinit
from ramd.state.sync import ChangeSync, RelaxSync, SettleSync
from ramd.state.wire import (
    Beat,
    decode_beat,
    decode_directive,
    decode_observation,
    decode_state,
    encode_beat,
    encode_directive,
    encode_observation,
    encode_state,
)

MEMBER = Member(node_id=1, name="n", hostname="h", postgresql_port=1, raft_port=2, http_port=3)
RECORD = DecisionRecord(epoch=1, rule="r", action="a", reason="ü", details=("x", "y"))
SET = SyncSet(members=(SyncMember(node_id=2, copy="2a"),), k=1)
COMMANDS: tuple[Command, ...] = (
    InitCluster(cluster_id="c", cluster_name="n", members=(MEMBER,), settings=Settings()),
    RecordSystem(system_id="7"),
    RecordFork(epoch=2, parent_timeline=1, fork_lsn=Lsn(LSN_MAX)),
    RequestHandover(handover=Handover(epoch=2, target=None)),
    CancelHandover(epoch=2, reason="why"),
    RecordDecision(record=RECORD),
    Destroy(removal=Removal(remove_data=True)),
    ChangeSettings(
        settings=Settings(maximum_lag_on_failover=3), replaces=Settings(), operation="x"
    ),
    DescribeMember(node_id=2, name="ü", priority=9, nofailover=True, nosync=True),
    ChangeSync(epoch=2, generation=3, target=SET, primary_copy="c", record=RECORD),
    SettleSync(epoch=2, generation=3),
    RelaxSync(epoch=2, generation=3, record=RECORD),
    InviteMember(
        invitation=Invitation(member=MEMBER, nonce="x", expires_unix_ms=9, replaces=2),
        at_unix_ms=5,
    ),
    WithdrawInvitation(nonce="x", reason="ü"),
    AdmitMember(nonce="x", at_unix_ms=5),
    RemoveMember(node_id=2, requested_by="ü"),
    KeepMember(node_id=2, reason="ü"),
    DropMember(node_id=2, at_unix_ms=5),
    RecordPhases(epoch=2, phases=(Phase(name="ü", ms=5),)),
    RecordRecovery(cluster_id="c2", survivor=2, requested_by="ü", at_unix_ms=5),
    OrderReinit(reinit=Reinit(node_id=2, copy="2a", requested_by="ü"), at_unix_ms=5),
    EndReinit(node_id=2, copy="2a", reason="ü", at_unix_ms=5),
)
REIGN = Reign(epoch=1, node_id=1, timeline=1, start=StartMode.PROMOTE, seal_lsn=Lsn(5))
ATTEMPT = Attempt(term=5, number=1)
POSITION = Position(timeline=2, lsn=Lsn(LSN_MAX))
SEEN = Observation(
    node_id=2,
    boot=3,
    taken_ns=1 << 62,
    data=DataKind.CLUSTER,
    state=ServerState.RUNNING,
    role=ServerRole.REPLICA,
    position=POSITION,
    streaming_replicas=(1, 3),
    lag_seconds=0.25,
    sealed=SealReport(epoch=1, attempt=ATTEMPT, position=POSITION, copy="2a"),
    copy="2a",
    sync=SyncSeen(
        streams=(Stream(node_id=3, copy="3a", flushed=Lsn(7), counts=True),), generation=3
    ),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_a_command_survives_the_log(command: Command) -> None:
    assert decode(encode(command)) == command


def test_a_change_of_settings_from_before_it_was_compared_replaces_whatever_there_is() -> None:
    settings = Settings(num_sync_standbys=2)
    old = msgspec.msgpack.encode((VERSION, "settings", {"settings": settings}))
    assert decode(old) == ChangeSettings(settings=settings, replaces=None)


def test_other_values_survive_the_wire() -> None:
    sync = SyncGrant(target=SET, primary_copy="1a", after_loss=True)
    payload = GrantPayload(reign=REIGN, record=RECORD, sync=sync)
    assert decode_grant_payload(encode_grant_payload(payload)) == payload
    assert decode_observation(encode_observation(SEEN)) == SEEN
    directive = Directive(epoch=1, attempt=ATTEMPT, sealed=True)
    assert decode_directive(encode_directive(directive)) == directive
    for told in (directive, None):
        beat = Beat(
            directive=told, observations=(SEEN,), coordinator=1, state_index=9, ages_ms=(4,)
        )
        assert decode_beat(encode_beat(beat)) == beat
    state = ClusterState(
        cluster_id="c",
        members=(MEMBER,),
        reigns=(REIGN,),
        handover=Handover(epoch=1, target=2),
        decisions=(RECORD,),
        sync=SyncRecord(generation=4, rules=(SyncSet(alone=True), SET), target=SET),
        applied_index=7,
    )
    assert decode_state(encode_state(state)) == state


def pack(*parts: object) -> bytes:
    return msgspec.msgpack.encode(parts)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a message"),
        (b"\xc1", "not a message"),
        (pack(VERSION, "system"), "not a message"),
        (b"\x93\x01\xa1\xff\xc0", "not a message"),
        (pack(VERSION + 1, "system", {"system_id": "7"}), "version 2 is not 1"),
        (pack(VERSION, "fly", {}), "unknown command 'fly'"),
        (pack(VERSION, "system", {}), "not a RecordSystem"),
        (pack(VERSION, "system", {"system_id": 7}), "not a RecordSystem"),
        (b"\x93\x01\xa6system\x81\xa9system_id\xa1\xff", "not a RecordSystem"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(UndecodableError, match=why):
        decode(data)


def test_a_message_is_not_taken_for_another() -> None:
    with pytest.raises(UndecodableError, match="expected 'beat', got 'observation'"):
        decode_beat(encode_observation(SEEN))


def test_a_newer_minor_writer_may_add_keys() -> None:
    assert decode(pack(VERSION, "system", {"system_id": "7", "more": 1})) == COMMANDS[1]


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_a_command_or_undecodable(data: bytes) -> None:
    try:
        command = decode(data)
    except UndecodableError:
        return
    assert decode(encode(command)) == command


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_flipped_byte_never_breaks_the_reader(at: int, value: int) -> None:
    data = bytearray(encode(COMMANDS[0]))
    data[at % len(data)] = value
    try:
        decode(bytes(data))
    except UndecodableError:
        return
