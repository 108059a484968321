"""Names by which a key may also be given."""

from __future__ import annotations

ALIASES: dict[str, str] = {
    "rale_port": "raft_port",
    "cluster_bind_interface": "raft_bind_address",
    "postgresql_user": "database_user",
    "database_password": "postgresql_password",
    "sync_timeout_ms": "sync_replication_timeout_ms",
}
"""Old name → name. Accepted with a warning."""

SELECTORS = ("primary", "replica")
"""Words by which people mean a node without naming it."""


def means_a_node(name: str, node_id: int) -> bool:
    """`name` could be taken for a selector, or for a node other than `node_id`."""
    if name.isdigit() or name in SELECTORS:
        return True
    if name.startswith("replica") and name[7:].isdigit():
        return True
    return name.startswith("node") and name[4:].isdigit() and name != f"node{node_id}"


ENVIRONMENT_KEYS: dict[str, str] = {
    "RAMD_NODE_ID": "node_id",
    "RAMD_CLUSTER_NAME": "cluster_name",
    "RAMD_PG_PORT": "postgresql_port",
    "RAMD_PG_DATA_DIR": "postgresql_data_dir",
}
"""Variables that override the file."""

REFUSED_FAMILY = "ldap_"
"""Every key that begins so is refused unless it is empty."""
