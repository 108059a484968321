"""The envelope around answers and errors."""

import json
import re

import pytest
from pydantic import ValidationError

from ramd.domain.errors import CODES, Obstacle, Refused, Unavailable
from ramd.domain.observation import ServerState
from ramd.schema.answers import (
    ClusterHealthData,
    ClusterStatusData,
    CreateData,
    DestroyData,
    FailoverData,
    HealthData,
    NodeData,
)
from ramd.schema.envelope import TIMESTAMP, Answer, Success, failure_of, timestamp_of

NOW = 1_800_000_000_250
STATUS_FIELDS = """cluster_name node_count primary_node_id leader_node_id has_quorum
auto_failover_enabled synchronous_replication last_topology_change"""
NODE_FIELDS = """id name hostname port role state priority replication_lag_ms last_seen
postgresql_version uptime_seconds"""


def test_timestamps_are_utc_with_milliseconds() -> None:
    assert timestamp_of(NOW) == "2027-01-15T08:00:00.250Z"
    assert timestamp_of(0) == "1970-01-01T00:00:00.000Z"
    assert re.match(TIMESTAMP, timestamp_of(NOW + 749))


def test_an_answer_has_five_fields() -> None:
    data = HealthData(daemon_status="running", uptime_seconds=3, version="1.0")
    answer = Success[HealthData](message="ok", data=data, timestamp=timestamp_of(NOW))
    assert json.loads(answer.model_dump_json()) == {
        "status": "success",
        "code": 200,
        "message": "ok",
        "data": {"daemon_status": "running", "uptime_seconds": 3, "version": "1.0"},
        "timestamp": "2027-01-15T08:00:00.250Z",
    }


def test_an_error_says_what_where_and_what_to_do() -> None:
    error = Refused("num_nodes: is required", code="invalid_field", field="num_nodes", hint="a")
    assert json.loads(failure_of(error, now_unix_ms=NOW).model_dump_json()) == {
        "status": "error",
        "code": 400,
        "error": "invalid_field",
        "message": "num_nodes: is required",
        "hint": "a",
        "data": None,
        "details": {"field": "num_nodes", "error": "is required"},
        "obstacles": [],
        "timestamp": "2027-01-15T08:00:00.250Z",
    }
    assert failure_of(Unavailable("later"), now_unix_ms=NOW).details is None


def test_an_error_names_all_that_stands_against_it() -> None:
    one = Obstacle(code="conflict", node_id=2, reason="it sleeps", accepted="one that is awake")
    failure = failure_of(Refused("no", obstacles=(one,)), now_unix_ms=NOW)
    assert json.loads(failure.model_dump_json())["obstacles"] == [
        {"code": "conflict", "node_id": 2, "reason": "it sleeps", "accepted": "one that is awake"}
    ]


@pytest.mark.parametrize("code", CODES)
def test_every_error_code_can_be_sent(code: str) -> None:
    failure = failure_of(Refused("no", code=code), now_unix_ms=NOW)
    assert (failure.code, failure.error) == (CODES[code].http_status, code)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (HealthData, "daemon_status uptime_seconds version"),
        (
            ClusterHealthData,
            "cluster_status healthy_nodes total_nodes primary_node_id replication_lag_ms",
        ),
        (ClusterStatusData, STATUS_FIELDS),
        (NodeData, NODE_FIELDS),
        (CreateData, "cluster_id nodes_created primary_node replica_nodes"),
        (DestroyData, "cluster_destroyed nodes_stopped"),
        (FailoverData, "failover_triggered old_primary new_primary failover_time_ms"),
    ],
)
def test_the_documented_fields_are_there(model: type[Answer], names: str) -> None:
    assert set(names.split()) <= set(model.model_fields)


def test_states_are_the_words_of_the_domain() -> None:
    words = NodeData.model_fields["state"].annotation
    assert set(words.__args__) == {state.value for state in ServerState}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "wrong",
    [{"uptime_seconds": "3"}, {"daemon_status": "fine"}, {"extra": 1}, {"uptime_seconds": -1}],
)
def test_answers_are_strict(wrong: dict[str, object]) -> None:
    good: dict[str, object] = {"daemon_status": "running", "uptime_seconds": 3, "version": "1"}
    with pytest.raises(ValidationError):
        HealthData.model_validate(good | wrong)
