"""Rules across keys: each refused with the key, both values and a remedy; and their absence."""

import pytest

from ramd.config.faults import InvalidConfigError
from ramd.config.load import load_text

BASE = "postgresql_data_dir = /srv/pg/data\n"
THREE = "".join(f"node_{n}_hostname = db{n}\n" for n in (1, 2, 3))
LOCAL = "".join(
    f"node_{n}_hostname = localhost\nnode_{n}_port = {5431 + n}\n"
    f"node_{n}_raft_port = {7399 + n}\nnode_{n}_http_port = {8007 + n}\n"
    for n in (1, 2, 3)
)


def faults(text: str) -> list[str]:
    with pytest.raises(InvalidConfigError) as caught:
        load_text(BASE + text, {}, source="f")
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        ("http_bind_address = 0.0.0.0", "f:2: http_bind_address: '0.0.0.0' is reachable"),
        ("http_bind_address = ::", "f:2: http_bind_address: '::' is reachable"),
        ("http_bind_address = db1", "f:2: http_bind_address: 'db1' is reachable"),
        ("http_auth_enabled = true", "f:2: http_auth_enabled: has no token to ask for"),
        ("node_name = primary", "f:2: node_name: 'primary' means something else"),
        ("node_name = replica2", "f:2: node_name: 'replica2' means something else"),
        ("node_name = 7", "f:2: node_name: '7' means something else"),
        (f"node_name = node2\n{LOCAL}", "f:2: node_name: 'node2' is the name of node 2"),
        (f"node_id = 4\n{LOCAL}", "f:2: node_id: 4 is not in the node list (1, 2, 3)"),
        (f"cluster_size = 5\n{LOCAL}", "f:2: cluster_size: is 5, but the node list has 3"),
        (
            f"postgresql_port = 6000\n{LOCAL}",
            "f:4: node_1_port: '5432' differs from postgresql_port '6000'",
        ),
        (f"http_port = 6000\n{LOCAL}", "f:6: node_1_http_port: '8008' differs from http_port"),
        (f"rale_port = 6000\n{LOCAL}", "f:5: node_1_raft_port: '7400' differs from raft_port"),
        (f"hostname = other\n{LOCAL}", "f:3: node_1_hostname: 'localhost' differs from hostname"),
        (
            f"{LOCAL}node_1_role = primary\nnode_2_role = primary",
            "f:15: node_2_role: node 1 is the primary already",
        ),
        ("raft_port = 5432", "f:2: raft_port: 5432 is postgresql_port on the same host"),
        ("http_port = 7400", "f:2: http_port: 7400 is raft_port on the same host"),
        ("join = db1:7400\ncluster_secret_file = /x", "f:2: join: needs join_token_file"),
        (
            "hostname = db4\njoin = db1:7400\njoin_token_file = /x",
            "f:3: cluster_secret_file: is required to join",
        ),
        ("join_token_file = /x", "f:2: join_token_file: joins nothing without join"),
        ("join = db1", "f:2: join: 'db1' is not host:port"),
        ("join = db1:0", "f:2: join: 'db1:0' is not host:port"),
        ("join = db1:7400, d b:1", "f:2: join: 'd' is not host:port"),
        (
            "join = db1:7400\njoin_token_file = /x\ncluster_secret_file = /y",
            "f:2: hostname: 'localhost' cannot be reached from db1",
        ),
        ("replication_user = postgres", "f:2: replication_user: 'postgres' is database_user"),
        ("initdb_options = -D /x", "f:2: initdb_options: -D is RAMD's own to give"),
        ("initdb_options = --pgdata=/x", "f:2: initdb_options: --pgdata is RAMD's own"),
        ("initdb_options = --no-sync -Aident", "f:2: initdb_options: -Aident is RAMD's own"),
        (
            "raft_heartbeat_ms = 201",
            "f:2: raft_election_timeout_ms: 600 is less than three heartbeats",
        ),
        (
            "primary_lease_ttl_ms = 2999",
            "f:2: primary_lease_ttl_ms: 2999 is less than 2.5 × the longest election timeout",
        ),
        (
            "auth_method = trust\npostgresql_password = x",
            "f:2: auth_method: trust never asks for postgresql_password",
        ),
        ("hostname = db1\nauth_method = none", "f:3: auth_method: trust lets every host"),
        (
            "hostname = db1\nraft_bind_address = 127.0.0.1",
            "f:3: raft_bind_address: '127.0.0.1' cannot be reached",
        ),
        ("state_dir = /srv/pg/data/state", "f:2: state_dir: '/srv/pg/data/state' is inside"),
        ("state_dir = /srv/pg/data", "f:2: state_dir: '/srv/pg/data' is inside"),
        ("state_dir = /srv", "f:2: state_dir: '/srv' contains postgresql_data_dir"),
        ("postgresql_log_dir = /srv/pg/data/log", "f:2: postgresql_log_dir: "),
    ],
)
def test_refused(text: str, starts: str) -> None:
    found = faults(text)
    assert any(fault.startswith(starts) for fault in found), found


@pytest.mark.parametrize(
    "text",
    [
        LOCAL,
        f"node_id = 2\n{LOCAL}",
        "http_bind_address = 127.0.0.5",
        "http_bind_address = ::1",
        "http_bind_address = 0.0.0.0\nhttp_api_enabled = false",
        "http_bind_address = 0.0.0.0\nhttp_auth_enabled = on\nhttp_auth_token = long-enough",
        "raft_election_timeout_ms = 300\nprimary_lease_ttl_ms = 1500",
        "timing_profile = fast",
        "timing_profile = wan",
        "initdb_options = --no-sync --data-checksums -E UTF8",
        "state_dir = /srv/pg/data.ramd",
        "state_dir = /srv/pg/data2",
        "node_name = replica",
        "node_name = node1",
    ],
)
def test_accepted(text: str) -> None:
    if "= replica" in text:
        assert "means something else" in faults(text)[0]
    else:
        load_text(BASE + text, {})


def test_several_hosts_need_a_secret() -> None:
    (fault,) = faults(THREE)
    assert fault.startswith("f: cluster_secret_file: is required when the nodes are on several")


def test_loopback_and_other_hosts_do_not_mix() -> None:
    found = faults("node_1_hostname = localhost\nnode_2_hostname = db2\nnode_3_hostname = db3\n")
    assert any(f.startswith("f:2: node_1_hostname: 'localhost' means another host") for f in found)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1"])
def test_one_host_gives_each_port_once(host: str) -> None:
    text = f"node_1_hostname = localhost\nnode_2_hostname = {host}\n"
    found = faults(text)
    assert [fault.split(": ")[1] for fault in found] == [
        "node_2_http_port",
        "node_2_port",
        "node_2_raft_port",
    ]
    assert "5432 is node_1_port on the same host" in found[1]


def test_an_entry_without_hostname_names_what_is_missing() -> None:
    (fault,) = faults("node_1_hostname = localhost\nnode_2_port = 5433\n")
    assert fault == "f:3: node_2_hostname: is missing beside 'node_2_port'; add node_2_hostname"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("node_0_hostname = x", "0 is not a node; N is 1 to 9"),
        ("node_10_hostname = x", "10 is not a node; N is 1 to 9"),
        ("node_01_hostname = x", "1 is not a node"),
        ("node_2_port = abc", "'abc' is not a whole number"),
        ("node_2_port = 0", "'0' is too small"),
        ("node_2_role = boss", "'boss' is not one of its words; primary or replica"),
    ],
)
def test_faulty_entries(line: str, says: str) -> None:
    found = faults(f"node_1_hostname = localhost\n{line}\n")
    assert any(fault.startswith("f:3: ") and says in fault for fault in found), found


def test_more_replicas_than_are_listed_cannot_confirm() -> None:
    asked = f"{BASE}{LOCAL}num_sync_standbys = "
    assert load_text(f"{asked}2", {}).warnings == ()
    told = "num_sync_standbys: 3 replicas are to confirm, and the node list has 2: accepted are"
    assert load_text(f"{asked}3", {}).warnings == (f"{told} 1 to 2, unless more nodes have joined",)
    assert load_text(f"{asked}3\nsynchronous_replication = off", {}).warnings == ()
