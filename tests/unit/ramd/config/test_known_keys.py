"""Names that users of earlier versions know: every one is a key, and the guide's examples load."""

import pytest

from ramd.config.client import CLIENT_KEYS
from ramd.config.faults import InvalidConfigError
from ramd.config.load import load_text
from ramd.config.model import KEYS
from ramd.config.names import ALIASES

GUIDE = """
node_id hostname cluster_name cluster_size postgresql_port postgresql_data_dir postgresql_bin_dir
database_name database_user http_api_enabled http_bind_address http_port http_auth_enabled
http_auth_token monitor_interval_ms health_check_timeout_ms auto_failover_enabled ssl_enabled
ssl_cert_file ssl_key_file ssl_ca_file rate_limiting_enabled rate_limit_requests_per_minute
backup_tool backup_repository backup_retention_days prometheus_enabled prometheus_port
prometheus_path log_file log_to_syslog debug_mode connection_pool_size memory_limit_mb
"""
SAMPLE = """
postgresql_log_dir postgresql_user replication_user postgresql_password http_max_request_size
http_request_timeout failover_timeout_ms recovery_timeout_ms synchronous_replication log_level
log_to_console log_rotation_size_mb log_rotation_count rale_port dstore_port
cluster_bind_interface sync_standby_names num_sync_standbys sync_replication_timeout_ms
enforce_sync_standbys maintenance_mode_enabled maintenance_drain_timeout_ms
maintenance_backup_before backup_compression daemonize pid_file daemon_user daemon_group
working_directory connection_timeout query_timeout profiling_enabled cpu_limit_percent
"""
EARLIER = """
database_password ssl_mode require_ssl verify_ssl auth_method kerberos_service pam_service
sync_timeout_ms ldap_server
"""
ADDED = """
state_dir raft_port raft_bind_address node_name cluster_secret_file join join_token_file
timing_profile raft_heartbeat_ms raft_election_timeout_ms primary_lease_ttl_ms
clock_drift_percent startup_grace_ms fence_grace_ms pgraft_extension page_dir
maximum_lag_on_failover node_priority
nofailover nosync switchover_drain_ms initdb_options http_auth_token_file
log_format prometheus_bind_address
"""


def test_every_known_key_is_a_key_and_every_key_is_listed() -> None:
    known = {*GUIDE.split(), *SAMPLE.split(), *EARLIER.split(), *ADDED.split()}
    assert known == {*KEYS, *ALIASES}


def test_every_known_key_of_ramctrl_is_a_key() -> None:
    known = """default_host default_port connection_timeout request_timeout max_retries retry_delay
    default_output_format colored_output auth_method default_auth_token verify_ssl
    monitoring_interval ssl_enabled ssl_cert_file ssl_key_file ssl_ca_file"""
    assert set(known.split()) | {"default_auth_token_file"} == set(CLIENT_KEYS)


BASIC = """
# Node identification
node_id = 1
hostname = localhost
cluster_name = ram_cluster
cluster_size = 3

# PostgreSQL settings
postgresql_port = 5432
postgresql_data_dir = /tmp/postgres_data
database_name = postgres
database_user = postgres

# HTTP API
http_api_enabled = true
http_bind_address = 127.0.0.1
http_port = 8008

# Monitoring
auto_failover_enabled = true
"""
SLOW_PROBES = "monitor_interval_ms = 5000\n"
LIMITS_BACKUP_METRICS = """
rate_limiting_enabled = true
rate_limit_requests_per_minute = 100

# Backup
backup_tool = pgbackrest
backup_repository = /var/lib/ramd/backups
backup_retention_days = 7

# Prometheus metrics
prometheus_enabled = true
prometheus_port = 9090
prometheus_path = /metrics
"""
PERFORMANCE = """
# Increase connection pool
connection_pool_size = 20

# Adjust monitoring intervals
monitor_interval_ms = 3000
health_check_timeout_ms = 5000

# Optimize memory usage
memory_limit_mb = 1024
"""
AUTHENTICATION = """
# Enable authentication
http_auth_enabled = true
http_auth_token = your-secret-token
"""
TLS = """
# Enable SSL
ssl_enabled = true
ssl_cert_file = /etc/ssl/certs/ramd.crt
ssl_key_file = /etc/ssl/private/ramd.key
ssl_ca_file = /etc/ssl/certs/ca.crt
"""
DEBUG = "debug_mode = true\n"


@pytest.mark.parametrize(
    ("block", "warned"),
    [
        (SLOW_PROBES, []),
        (
            LIMITS_BACKUP_METRICS,
            ["backup_repository", "backup_tool", "rate_limiting_enabled"],
        ),
        (PERFORMANCE, ["connection_pool_size", "memory_limit_mb"]),
        (AUTHENTICATION, []),
        (DEBUG, []),
    ],
    ids=["basic", "advanced", "performance", "authentication", "debug"],
)
def test_examples_of_the_guide_load(block: str, warned: list[str]) -> None:
    config = load_text(BASIC + block, {})
    assert sorted(warning.split(":")[0] for warning in config.warnings) == warned


def test_the_directory_of_programs_is_the_only_fault_of_the_basic_example() -> None:
    text = BASIC + "postgresql_bin_dir = /nonexistent/pgsql.17/bin\n"
    with pytest.raises(InvalidConfigError) as caught:
        load_text(text, {})
    assert [fault.key for fault in caught.value.faults] == ["postgresql_bin_dir"]


def test_the_tls_example_lacks_nothing_but_its_files() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load_text(BASIC + TLS, {})
    (fault,) = caught.value.faults
    assert (fault.key, fault.wrong) == (
        "ssl_cert_file",
        "'/etc/ssl/certs/ramd.crt' cannot be read (No such file or directory)",
    )
