"""Reading requests: strict, bounded, and the culprit is named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramd.domain.errors import Refused
from ramd.schema.explain import MoveRequest
from ramd.schema.requests import (
    CreateRequest,
    DestroyRequest,
    FailoverRequest,
    Request,
    read_request,
    refusal,
)


def refused(model: type[Request], body: object) -> Refused:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Refused) as caught:
        read_request(model, raw)
    return caught.value


def outcome(model: type[Request], body: bytes) -> Request | Refused:
    try:
        return read_request(model, body)
    except Refused as error:
        return error


def test_create() -> None:
    assert read_request(CreateRequest, b'{"num_nodes": 3}') == CreateRequest(num_nodes=3)
    body = {
        "num_nodes": 3,
        "primary_port": 6000,
        "replica_ports": [6001, 6002],
        "data_dir": "/srv/cluster",
        "log_dir": "/var/log/cluster",
    }
    request = read_request(CreateRequest, json.dumps(body).encode())
    assert request.replica_ports == (6001, 6002)
    assert request.data_dir == "/srv/cluster"


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({}, "num_nodes", "is required"),
        ({"num_nodes": "3"}, "num_nodes", "must be a whole number"),
        ({"num_nodes": 3.0}, "num_nodes", "must be a whole number"),
        ({"num_nodes": True}, "num_nodes", "must be a whole number"),
        ({"num_nodes": None}, "num_nodes", "must be a whole number"),
        ({"num_nodes": 0}, "num_nodes", "must be at least 1"),
        ({"num_nodes": 10}, "num_nodes", "must be at most 9"),
        ({"num_nodes": 3, "primary_port": 70000}, "primary_port", "must be at most 65535"),
        ({"num_nodes": 3, "replica_ports": 5}, "replica_ports", "must be a list"),
        ({"num_nodes": 3, "replica_ports": [1, "a"]}, "replica_ports[1]", "whole number"),
        ({"num_nodes": 3, "replica_ports": [1]}, "replica_ports", "1 ports for 2 replicas"),
        ({"num_nodes": 3, "replica_ports": [5, 5]}, "replica_ports", "named twice"),
        (
            {"num_nodes": 2, "primary_port": 5, "replica_ports": [5]},
            "replica_ports",
            "named twice",
        ),
        ({"num_nodes": 3, "data_dir": "relative"}, "data_dir", "absolute path"),
        ({"num_nodes": 3, "data_dir": "/"}, "data_dir", "absolute path"),
        ({"num_nodes": 3, "log_dir": "/a\nb"}, "log_dir", "absolute path"),
        ({"num_nodes": 3, "log_dir": "/" + "x" * 2000}, "log_dir", "at most 1024"),
        ({"num_nodes": 3, "bogus": 1}, "bogus", "no such field"),
        ({"num_node": 3}, "num_node", "no such field"),
    ],
)
def test_create_refused(body: object, field: str, says: str) -> None:
    error = refused(CreateRequest, body)
    assert (error.code, error.field) == ("invalid_field", field)
    assert error.message.startswith(f"{field}: ")
    assert says in error.message


def test_a_misspelt_field_is_told_the_right_one() -> None:
    assert refused(CreateRequest, {"num_node": 3}).hint == "did you mean num_nodes?"
    assert refused(FailoverRequest, {"zzz": 3}).hint == "known fields: target_node, accept_loss"


def test_a_refused_body_is_told_what_the_fields_are() -> None:
    assert refused(MoveRequest, {}).hint == "known fields: node_id"
    assert refused(FailoverRequest, []).hint == "an object with any of: target_node, accept_loss"


@pytest.mark.parametrize("body", [b"[]", b"3", b"null", b'"x"', b"{", b"\xff\xfe", b"{'a': 1}"])
def test_what_is_no_object_is_a_bad_request(body: bytes) -> None:
    assert refused(CreateRequest, body).code == "bad_request"


@pytest.mark.parametrize("body", [b"", b"  \n", b"{}"])
def test_an_empty_body_asks_for_the_defaults(body: bytes) -> None:
    assert read_request(FailoverRequest, body).target_node is None
    assert read_request(DestroyRequest, body) == DestroyRequest(remove_data=False)


@pytest.mark.parametrize("target", [1, "node2", "replica1"])
def test_failover_takes_an_id_or_a_name(target: int | str) -> None:
    body = json.dumps({"target_node": target}).encode()
    assert read_request(FailoverRequest, body).target_node == target


@pytest.mark.parametrize("target", [0, 10, 1.5, True, "", "x" * 64, [1]])
def test_failover_refuses_other_targets(target: object) -> None:
    error = refused(FailoverRequest, {"target_node": target})
    assert (error.code, error.field) == ("invalid_field", "target_node")
    number = isinstance(target, int) and not isinstance(target, bool)
    assert ("must be at" if number else "an id from 1 to 9, or a name") in error.message


def test_removing_data_needs_the_name_of_the_cluster() -> None:
    error = refused(DestroyRequest, {"remove_data": True})
    assert (error.code, error.field) == ("invalid_field", "cluster_name")
    request = read_request(DestroyRequest, b'{"remove_data": true, "cluster_name": "prod"}')
    assert (request.remove_data, request.cluster_name) == (True, "prod")
    assert refused(DestroyRequest, {"remove_data": "yes"}).field == "remove_data"


def test_errors_with_the_place_of_a_web_framework_are_understood() -> None:
    error = refusal(
        [{"type": "int_type", "loc": ("body", "num_nodes"), "msg": "x"}], ("num_nodes",)
    )
    assert error.field == "num_nodes"


@given(st.binary(max_size=200))
def test_no_body_breaks_the_reader(body: bytes) -> None:
    for model in (CreateRequest, DestroyRequest, FailoverRequest):
        found = outcome(model, body)
        if isinstance(found, Refused):
            assert found.code in {"bad_request", "invalid_field"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
field_names = st.sampled_from([*CreateRequest.model_fields, *DestroyRequest.model_fields, "x"])


@given(st.dictionaries(field_names, json_values, max_size=4))
def test_every_refused_field_is_named(body: dict[str, object]) -> None:
    found = outcome(CreateRequest, json.dumps(body).encode())
    if isinstance(found, Refused):
        assert found.field
        assert found.message.startswith(found.field)
