"""What follows from the keys: members, timing, derived places and addresses."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from ramd.config.load import load_text
from ramd.config.model import KEYS, Config, all_fields
from ramd.config.topics.failover import PROFILES
from ramd.domain.model import Member, Settings

BASE = "postgresql_data_dir = /srv/pg/data\n"
MS = 1_000_000


def load(text: str = "") -> Config:
    return load_text(BASE + text, {})


def test_places_follow_the_data_directory() -> None:
    config = load()
    assert config.state_dir == Path("/srv/pg/data.ramd")
    assert config.postgresql_log_dir == Path("/srv/pg/data.ramd/log")
    assert config.state_pid_file == Path("/srv/pg/data.ramd/ramd.pid")
    assert load("state_dir = /var/lib/r").postgresql_log_dir == Path("/var/lib/r/log")
    assert load_text("postgresql_data_dir = /srv/pg/data/", {}).state_dir == config.state_dir


def test_a_node_without_a_list_is_its_only_member() -> None:
    config = load("node_id = 4\nnode_priority = 70\nnofailover = true\nraft_port = 7000\n")
    assert not config.forms_cluster
    assert config.members() == (
        Member(
            node_id=4,
            name="node4",
            hostname="localhost",
            postgresql_port=5432,
            raft_port=7000,
            http_port=8008,
            priority=70,
            nofailover=True,
        ),
    )


def test_the_list_and_the_own_keys_complete_each_other() -> None:
    config = load(
        "node_id = 2\nhttp_port = 8010\nnode_name = berlin\nnode_priority = 9\n"
        "node_1_hostname = 127.0.0.1\nnode_1_port = 5001\nnode_1_raft_port = 7001\n"
        "node_1_http_port = 8001\n"
        "node_2_hostname = 127.0.0.2\nnode_2_port = 5002\nnode_2_role = standby\n"
    )
    assert config.forms_cluster
    assert (config.hostname, config.postgresql_port, config.cluster_size) == ("127.0.0.2", 5002, 2)
    first, own = config.members()
    assert (first.node_id, first.name, first.postgresql_port) == (1, "node1", 5001)
    assert (own.name, own.postgresql_port, own.raft_port, own.http_port, own.priority) == (
        "berlin",
        5002,
        7400,
        8010,
        9,
    )
    assert own == config.own_member()
    assert config.nodes[1].role == "replica"


def test_one_file_serves_every_host(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef\n")
    secret.chmod(0o600)
    text = BASE + "postgresql_port = 6000\n" + f"cluster_secret_file = {secret}\n"
    text += "".join(f"node_{n}_hostname = db{n}\n" for n in (3, 1, 2))
    configs = [load_text(text, {"RAMD_NODE_ID": str(n)}) for n in (1, 2, 3)]
    assert [config.hostname for config in configs] == ["db1", "db2", "db3"]
    assert len({config.members() for config in configs}) == 1
    assert {member.postgresql_port for member in configs[0].members()} == {6000}


def test_one_host_listens_on_loopback_and_trusts() -> None:
    config = load()
    assert config.one_host
    assert (config.raft_bind_address, config.auth_method) == ("127.0.0.1", "trust")
    assert not config.scram_required


def test_a_network_listens_everywhere_and_asks_for_passwords() -> None:
    config = load("hostname = db1\n")
    assert not config.one_host
    assert (config.raft_bind_address, config.auth_method) == ("", "scram-sha-256")
    assert load("postgresql_password = x\n").scram_required
    assert load("auth_method = scram\n").scram_required


@pytest.mark.parametrize(
    ("profile", "times"),
    [("fast", (30, 150, 1000)), ("default", (100, 600, 3000)), ("wan", (500, 3000, 15_000))],
)
def test_profiles(profile: str, times: tuple[int, int, int]) -> None:
    timing = load(f"timing_profile = {profile}\n").timing()
    assert (timing.heartbeat_ns, timing.election_ns, timing.lease_ttl_ns) == tuple(
        time * MS for time in times
    )
    assert timing.drift == pytest.approx(0.01)


def test_a_time_set_alone_wins_over_the_profile() -> None:
    config = load("timing_profile = fast\nprimary_lease_ttl_ms = 2000\nclock_drift_percent = 0.5\n")
    assert config.raft_heartbeat_ms == 30
    assert config.timing().lease_ttl_ns == 2000 * MS
    assert config.timing().drift == pytest.approx(0.005)


def test_every_profile_keeps_the_bounds() -> None:
    for profile in PROFILES.values():
        assert profile.raft_election_timeout_ms >= 3 * profile.raft_heartbeat_ms
        assert profile.primary_lease_ttl_ms >= 5 * profile.raft_election_timeout_ms


def test_settings_are_the_initial_ones_of_the_cluster() -> None:
    text = "auto_failover_enabled = no\nmaximum_lag_on_failover = 16\nstartup_grace_ms = 5\n"
    assert load(text).settings() == Settings(
        auto_failover_enabled=False, maximum_lag_on_failover=16, startup_grace_ms=5
    )
    assert load().settings() == Settings()


def test_debug_mode_is_a_level() -> None:
    assert load().effective_log_level == "info"
    assert load("log_level = error\ndebug_mode = on\n").effective_log_level == "debug"


def test_given_keys_are_those_really_set() -> None:
    config = load_text("node_1_hostname = localhost\n" + BASE, {"RAMD_NODE_ID": "1"})
    assert config.given == {"postgresql_data_dir", "node_id"}


def test_it_is_immutable_and_knows_no_other_field() -> None:
    config = load()
    with pytest.raises(ValidationError, match="frozen"):
        config.node_id = 2  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Config(postgresql_data_dir=Path("/x"), nonsense=1)  # type: ignore[call-arg]


def test_every_key_is_described_once() -> None:
    names = [name for name, _, _ in all_fields()]
    assert len(names) == len(set(names)) == len(KEYS)
    assert set(Config.model_fields) - set(KEYS) == {"nodes", "given", "warnings"}
    for name, _, key in all_fields():
        assert key.doc.endswith((".", ")")), name
        assert key.doc[0].isupper(), name
    assert list(KEYS) == names
