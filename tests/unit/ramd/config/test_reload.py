"""What a reload applies, what needs a restart, what the group decides."""

from ramd.config.load import load_text
from ramd.config.model import Config
from ramd.config.reload import Changes, diff, merged


def load(text: str) -> Config:
    return load_text("postgresql_data_dir = /srv/pg/data\n" + text, {})


def test_nothing_changed() -> None:
    changes = diff(load(""), load("node_id = 1\n"))
    assert changes == Changes()
    assert not changes


def test_changes_are_sorted_by_what_has_to_happen() -> None:
    old = load("log_level = info\nhttp_port = 8008\n")
    new = load(
        "log_level = debug\nmonitor_interval_ms = 100\nhttp_port = 8009\n"
        "auto_failover_enabled = false\nnode_1_hostname = localhost\nnode_1_http_port = 8009\n"
    )
    changes = diff(old, new)
    assert changes
    assert set(changes.applied) == {"log_level"}
    assert set(changes.needs_restart) == {"http_port", "cluster_size", "monitor_interval_ms"}
    assert set(changes.cluster_wide) == {"auto_failover_enabled", "nodes"}


def test_merged_takes_only_what_can_be_applied() -> None:
    now = merged(load(""), load("log_level = debug\nhttp_port = 8009\nstartup_grace_ms = 1\n"))
    assert (now.log_level, now.http_port, now.startup_grace_ms) == ("debug", 8008, 30_000)
