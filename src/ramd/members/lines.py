"""What the ramd.conf of a new node must say, line by line. Start reading at `conf_lines`."""

from __future__ import annotations

from pathlib import Path

from ramd.config.model import Config
from ramd.config.render import render_conf
from ramd.domain.model import ClusterState, Invitation

SHARED = (
    "postgresql_bin_dir", "database_name", "database_user", "replication_user", "auth_method",
    "timing_profile", "raft_heartbeat_ms", "raft_election_timeout_ms", "primary_lease_ttl_ms",
    "clock_drift_percent", "fence_grace_ms", "switchover_drain_ms", "pgraft_extension",
    "ssl_enabled", "ssl_cert_file", "ssl_key_file", "ssl_ca_file",
)  # fmt: skip
"""Keys that every node of a cluster should have alike, or that name a file which every node has;
none of them is a secret."""


def conf_lines(
    config: Config, secret_file: Path, state: ClusterState, invitation: Invitation
) -> tuple[str, ...]:
    """The lines for the invited node, in the order of the reference.

    Paths are proposals, as is where the data go: files of another host are not seen from here.
    """
    new = invitation.member
    values: dict[str, object] = {
        key: getattr(config, key) for key in SHARED if key in config.given or key == "auth_method"
    }
    values |= {
        "cluster_name": state.cluster_name,
        "node_id": new.node_id,
        "node_name": new.name,
        "hostname": new.hostname,
        "postgresql_port": new.postgresql_port,
        "raft_port": new.raft_port,
        "http_port": new.http_port,
        "postgresql_data_dir": _data_dir(config, new.node_id),
        "cluster_secret_file": secret_file,
        "join": ", ".join(
            m.raft_address for m in state.members if m.node_id != invitation.replaces
        ),
        "join_token_file": token_file(new.node_id),
    }
    if config.one_host:
        values["prometheus_port"] = config.prometheus_port + new.node_id - config.node_id
    if new.priority != 50:
        values["node_priority"] = new.priority
    if new.nofailover:
        values["nofailover"] = True
    text = render_conf(values)
    return tuple(line for line in text.splitlines() if line)


def token_file(node_id: int) -> Path:
    """Where the answer proposes to keep the token until the node has joined."""
    return Path(f"/etc/ramd/node{node_id}.join_token")


def _data_dir(config: Config, node_id: int) -> Path:
    own = config.postgresql_data_dir
    if own.name == f"node{config.node_id}":
        return own.with_name(f"node{node_id}")
    return own if not config.one_host else own.with_name(f"{own.name}{node_id}")
