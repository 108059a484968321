"""Text and environment → Config or every fault: types, bounds, names, aliases, environment."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from ramd.config.explain import bounds, expected
from ramd.config.faults import InvalidConfigError
from ramd.config.keys import Availability
from ramd.config.load import load, load_text
from ramd.config.model import KEYS, Config, all_fields, key_of
from ramd.domain.sync import SyncMode

BASE = "postgresql_data_dir = /srv/pg/data\n"


def faults(text: str, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(InvalidConfigError) as caught:
        load_text(text, env or {}, source="f")
    return [str(fault) for fault in caught.value.faults]


def only_fault(text: str, env: dict[str, str] | None = None) -> str:
    found = faults(text, env)
    assert len(found) == 1, found
    return found[0]


BOUNDED = [(name, field) for name, field, _ in all_fields() if bounds(field)[0] is not None]
TIMING = {"raft_heartbeat_ms", "raft_election_timeout_ms", "primary_lease_ttl_ms"}


@pytest.mark.parametrize(("name", "field"), BOUNDED, ids=[name for name, _ in BOUNDED])
def test_bounds_are_enforced_and_told(name: str, field: FieldInfo) -> None:
    low, high = bounds(field)
    described = key_of(field)
    right = expected(field, described)
    assert right.endswith(f"from {low} to {high}")
    step = 1 if isinstance(low, int) else 0.01
    too_small, too_large = round(low - step, 2), round(high + step, 2)
    assert only_fault(f"{BASE}{name} = {too_small}") == (
        f"f:2: {name}: '{too_small}' is too small; {right}"
    )
    assert only_fault(f"{BASE}{name} = {too_large}") == (
        f"f:2: {name}: '{too_large}' is too large; {right}"
    )
    if name not in TIMING:  # they must agree with each other as well
        for edge in (low, high):
            assert getattr(load_text(f"{BASE}{name} = {edge}", {}), name) == edge


@pytest.mark.parametrize("name", [n for n, f, _ in all_fields() if f.annotation is int], ids=str)
@pytest.mark.parametrize("value", ["", "abc", "1.5", "1_000", "0x10", "1e3", "5s", "9" * 30])
def test_a_whole_number_is_nothing_else(name: str, value: str) -> None:
    assert only_fault(f"{BASE}{name} = {value}").startswith(f"f:2: {name}: ")


SWITCHES = [
    (name, key.availability) for name, field, key in all_fields() if field.annotation is bool
]


@pytest.mark.parametrize(("name", "availability"), SWITCHES, ids=[name for name, _ in SWITCHES])
def test_switches_take_the_usual_words(name: str, availability: Availability) -> None:
    for word in ("false", "Off", "NO", "0"):
        assert getattr(load_text(f"{BASE}{name} = {word}", {}), name) is False
    assert only_fault(f"{BASE}{name} = maybe") == (
        f"f:2: {name}: 'maybe' is neither true nor false; true or false"
    )
    if availability is not Availability.SECURITY and name not in NEEDS_MORE:
        for word in ("true", "On", "YES", "1"):
            assert getattr(load_text(f"{BASE}{name} = {word}", {}), name) is True


NEEDS_MORE = {"http_auth_enabled", "ssl_enabled"}
"""Switched on alone they are faults."""

PATHS = [
    name
    for name, field, _ in all_fields()
    if field.annotation is Path or field.annotation == (Path | None)
]


@pytest.mark.parametrize("name", PATHS)
def test_paths_are_absolute(name: str) -> None:
    base = "" if name == "postgresql_data_dir" else BASE
    line = base.count("\n") + 1
    for value in ("relative/path", "~/x", "/a/../b"):
        assert only_fault(f"{base}{name} = {value}").startswith(f"f:{line}: {name}: '{value}' ")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("hostname = a b", "neither an IP address nor a host name"),
        ("hostname = a..b", "neither an IP address nor a host name"),
        ("hostname = 1.2.3", "not a valid IP address"),
        ("hostname =", "has no value"),
        ("cluster_name = a/b", "not a usable name"),
        ("cluster_name = " + "x" * 64, "not a usable name"),
        ("log_level = loud", "one of: debug, info, warning, error"),
        ("timing_profile = quick", "one of: fast, default, wan"),
        ("ssl_mode = maybe", "disable, allow or prefer"),
        ("auth_method = md5", "no other method is available"),
        ("clock_drift_percent = one", "not a number"),
        ("initdb_options = 'a", "quotes"),
        ('initdb_options = "--locale=\'C"', "cannot be split"),
        ("prometheus_path = metrics", "begins with '/'"),
        ("daemon_user = a b", "not a usable name"),
    ],
)
def test_wrong_values_say_what_would_be_right(line: str, says: str) -> None:
    assert says in only_fault(BASE + line)


@pytest.mark.parametrize("key", ["http_auth_token", "postgresql_password"])
def test_a_secret_is_never_printed(key: str) -> None:
    secret = "tiger " + "x" * 600
    text = only_fault(f"{BASE}{key} = {secret}")
    assert key in text
    assert "tiger" not in text
    config = load_text(f"{BASE}http_auth_token = tiger-tiger\npostgresql_password = tiger", {})
    assert "tiger" not in repr(config)


def test_data_dir_is_required() -> None:
    assert only_fault("node_id = 1\n") == (
        "f: postgresql_data_dir: is required; name the data directory of this node's server"
    )
    assert only_fault("postgresql_data_dir =\n") == (
        "f:1: postgresql_data_dir: has no value; an absolute path"
    )


def test_all_faults_come_at_once() -> None:
    text = (
        "nod_id = 1\n"
        "node_id = 10\n"
        "[section]\n"
        "http_port = abc\n"
        "http_port = 1\n"
        "postgresql_port = 5432\n"
        "raft_port = 5432\n"
        "timing_profile = fast\n"
        "primary_lease_ttl_ms = 600\n"
    )
    found = faults(text)
    places = [fault.split(" ")[0] for fault in found]
    # raft_port is checked against the other ports only once all of them can be read.
    assert places == ["f:1:", "f:2:", "f:3:", "f:4:", "f:5:", "f:9:", "f:"]


def test_checks_across_keys_see_every_good_key() -> None:
    found = faults(f"{BASE}raft_port = 5432\nprimary_lease_ttl_ms = 600\nlog_level = x\n")
    assert [fault.split(":")[1] for fault in found] == ["2", "3", "4"]


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("nod_id", "node_id"),
        ("Node_ID", "node_id"),
        ("postgres_port", "postgresql_port"),
        ("monitor_interval", "monitor_interval_ms"),
        ("node_1_hostnam", "node_1_hostname"),
        ("node_1_raftport", "node_1_raft_port"),
        ("rale_prt", "rale_port"),
    ],
)
def test_unknown_key_names_the_nearest(key: str, near: str) -> None:
    assert only_fault(f"{BASE}{key} = 1") == (
        f"f:2: {key}: is not a key of RAMD; did you mean {near}?"
    )


def test_unknown_key_unlike_any_other() -> None:
    assert "docs/configuration.md" in only_fault(f"{BASE}zzzzqqqq = 1")


@pytest.mark.parametrize(
    ("old", "value", "key"),
    [
        ("rale_port", "7401", "raft_port"),
        ("cluster_bind_interface", "127.0.0.2", "raft_bind_address"),
        ("postgresql_user", "admin", "database_user"),
        ("database_password", "secret", "postgresql_password"),
        ("sync_timeout_ms", "10000", "sync_replication_timeout_ms"),
    ],
)
def test_old_names_are_taken_with_a_warning(old: str, value: str, key: str) -> None:
    config = load_text(f"{BASE}{old} = {value}", {}, source="f")
    assert str(getattr(config, key)) == value
    assert config.warnings == (f"f:2: {old} is an old name; write {key} instead",)


def test_old_and_new_name_must_agree() -> None:
    assert load_text(f"{BASE}rale_port = 7401\nraft_port = 7401", {}).raft_port == 7401
    found = only_fault(f"{BASE}rale_port = 7401\nraft_port = 7402")
    assert found.startswith("f:3: raft_port: means the same as rale_port in line 2")


def test_a_fault_under_an_old_name_is_told_under_that_name() -> None:
    assert only_fault(f"{BASE}rale_port = x").startswith("f:2: rale_port: 'x' is not a whole")


def test_the_environment_wins() -> None:
    env = {
        "RAMD_NODE_ID": "3",
        "RAMD_CLUSTER_NAME": "other",
        "RAMD_PG_PORT": "6543",
        "RAMD_PG_DATA_DIR": "/srv/other",
        "RAMD_UNKNOWN": "x",
        "PGDATA": "/nowhere",
    }
    config = load_text(f"{BASE}node_id = 1\npostgresql_port = abc", env)
    assert (config.node_id, config.cluster_name, config.postgresql_port) == (3, "other", 6543)
    assert config.postgresql_data_dir == Path("/srv/other")
    assert config.state_dir == Path("/srv/other.ramd")
    assert load_text(BASE, {"RAMD_NODE_ID": ""}).node_id == 1


def test_a_fault_of_the_environment_names_the_variable() -> None:
    assert only_fault(BASE, {"RAMD_PG_PORT": "x"}).startswith(
        "environment RAMD_PG_PORT: postgresql_port: 'x' is not a whole number"
    )


def test_options_win_over_the_environment() -> None:
    config = load_text(BASE, {"RAMD_NODE_ID": "2"}, {"node_id": "4", "pid_file": "/tmp/x.pid"})
    assert (config.node_id, config.pid_file) == (4, Path("/tmp/x.pid"))
    with pytest.raises(InvalidConfigError, match="command line: pid_file: "):
        load_text(BASE, {}, {"pid_file": "/srv/pg/data/x.pid"})


@pytest.mark.parametrize(
    ("word", "level"),
    [("DEBUG", "debug"), ("notice", "info"), ("warn", "warning"), ("fatal", "error")],
)
def test_levels_of_other_programs_map_onto_the_four(word: str, level: str) -> None:
    assert load_text(f"{BASE}log_level = {word}", {}).log_level == level


# --- availability -----------------------------------------------------------------------------

OTHER_VALUES: dict[str, str] = {
    "connection_timeout": "7",
    "query_timeout": "60",
    "backup_tool": "pgbackrest",
    "backup_repository": "/var/lib/ramd/backups",
    "backup_retention_days": "14",
    "backup_compression": "gzip",
    "maintenance_mode_enabled": "true",
    "maintenance_drain_timeout_ms": "1",
    "maintenance_backup_before": "true",
    "rate_limiting_enabled": "true",
    "rate_limit_requests_per_minute": "5",
    "recovery_timeout_ms": "5000",
    "memory_limit_mb": "1024",
    "cpu_limit_percent": "50",
    "profiling_enabled": "true",
    "connection_pool_size": "20",
}


def test_the_table_above_is_complete() -> None:
    planned = {n for n, _, key in all_fields() if key.availability is Availability.PLANNED}
    assert planned == set(OTHER_VALUES)


@pytest.mark.parametrize(("name", "value"), OTHER_VALUES.items(), ids=list(OTHER_VALUES))
def test_what_is_not_there_yet_starts_with_one_warning(name: str, value: str) -> None:
    config = load_text(f"{BASE}{name} = {value}", {})
    assert config.warnings == (f"{name}: not available in this version",)


def test_a_retired_key_has_no_effect_and_says_so() -> None:
    assert load_text(f"{BASE}dstore_port = 7402", {}).warnings == (
        "dstore_port: has no effect in RAMD",
    )


def test_defaults_warn_of_nothing() -> None:
    assert load_text(BASE, {}).warnings == ()
    harmless = "prometheus_enabled = false\ncpu_limit_percent = 100\nssl_mode = disable\n"
    assert (
        load_text(BASE + harmless + "ssl_enabled = off\nldap_server =\nldap_x =\n", {}).warnings
        == ()
    )


SECURITY = {
    "require_ssl": "true",
    "verify_ssl": "true",
    "ssl_mode": "verify-full",
    "kerberos_service": "postgres",
    "pam_service": "postgres",
    "ldap_server": "ldap.example.org",
}


def test_every_security_key_is_tried() -> None:
    refused = {n for n, _, key in all_fields() if key.availability is Availability.SECURITY}
    assert refused == set(SECURITY)


@pytest.mark.parametrize(("name", "value"), [*SECURITY.items(), ("ldap_base_dn", "dc=x")])
def test_a_protection_that_is_not_there_refuses_the_start(name: str, value: str) -> None:
    fault = only_fault(f"{BASE}{name} = {value}")
    assert fault.startswith(f"f:2: {name}: ")
    assert "not available in this version" in fault


# --- garbage ----------------------------------------------------------------------------------

key_names = st.sampled_from([*KEYS, "node_1_port", "node_2_hostname", "rale_port", "ldap_x", "x"])
junk_lines = st.one_of(
    st.text(max_size=40),
    st.builds(lambda key, value: f"{key} = {value}", key_names, st.text(max_size=30)),
    st.builds(lambda key, value: f"{key} = {value}", key_names, st.integers().map(str)),
)


@given(st.lists(junk_lines, max_size=12).map("\n".join))
def test_garbage_is_refused_line_by_line_or_loads(text: str) -> None:
    try:
        config = load_text(text, {}, source="f")
    except InvalidConfigError as error:
        lines = len(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
        for fault in error.faults:
            assert fault.origin.source == "f"
            assert 0 <= fault.origin.line <= lines
            if fault.origin.line == 0:  # about what is not in the file: then it names a key
                assert fault.key
            assert "\n" not in str(fault)
    else:
        assert isinstance(config, Config)


def test_load_reads_a_file_and_names_it(tmp_path: Path) -> None:
    file = tmp_path / "ramd.conf"
    file.write_text(BASE)
    assert load(file, {}).postgresql_data_dir == Path("/srv/pg/data")
    file.write_text("x = 1\n")
    with pytest.raises(InvalidConfigError, match=rf"{file}:1: x: is not a key"):
        load(file, {})


def test_a_readable_file_with_a_secret_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "ramd.conf"
    file.write_text(BASE + "postgresql_password = secret\n")
    file.chmod(0o644)
    (warning,) = load(file, {}).warnings
    assert "postgresql_password" in warning
    assert "chmod 600" in warning
    file.chmod(0o600)
    assert load(file, {}).warnings == ()


@pytest.mark.parametrize(
    ("word", "mode"),
    [("auto", "auto"), ("AUTO", "auto"), ("true", "on"), ("on", "on"), ("0", "off"), ("no", "off")],
)
def test_synchronous_replication_is_auto_or_a_truth_value(word: str, mode: str) -> None:
    config = load_text(
        f"postgresql_data_dir = /d\nsynchronous_replication = {word}\nsync_standby_names = b, c,\n",
        {},
    )
    assert config.synchronous_replication == mode
    assert config.settings().synchronous_replication is SyncMode(mode)
    assert config.settings().sync_standby_names == ("b", "c")
    everybody = load_text("postgresql_data_dir = /d\nsync_standby_names = *\n", {})
    assert everybody.settings().sync_standby_names == ()
