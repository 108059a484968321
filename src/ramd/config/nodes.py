"""The node list: keys `node_N_hostname`, `node_N_port`, … for N from 1 to 9.

Lives here: one entry of the list and the names of its keys. Defaults that come from the node's own
keys are filled in by `ramd.config.model`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ramd.config.keys import Host, Key, Port, Topic, Whole

NODE_KEY = re.compile(r"node_([0-9]{1,3})_([a-z_]+)\Z")
NODE_ID_MAX = 9

ROLE_SYNONYMS = {"standby": "replica"}


def parse_role(value: object) -> object:
    """A role in lower case; PostgreSQL's word standby means replica."""
    if not isinstance(value, str):
        return value
    return ROLE_SYNONYMS.get(value.lower(), value.lower())


class NodeEntry(Topic):
    """Node list."""

    # One node of it; after `Config` has been made every port is known.

    node_id: Annotated[Whole, Field(ge=1, le=NODE_ID_MAX), Key("N.")]
    hostname: Annotated[
        Host,
        Key(
            "Name or IP address of node N.",
            required=True,
            accepts="an IP address or host name",
            example="db1.example.org",
        ),
    ]
    port: Annotated[
        Port, Key("Port of PostgreSQL on node N.", default_text="postgresql_port of this file")
    ] = 5432
    raft_port: Annotated[
        Port, Key("Port of the daemon's channel on node N.", default_text="raft_port of this file")
    ] = 7400
    http_port: Annotated[
        Port, Key("Port of the REST interface on node N.", default_text="http_port of this file")
    ] = 8008
    role: Annotated[
        Literal["", "primary", "replica"],
        BeforeValidator(parse_role),
        Key(
            "A note for people: the first primary is the node with data, else the lowest number.",
            accepts="primary or replica",
        ),
    ] = ""


NODE_FIELDS = tuple(name for name in NodeEntry.model_fields if name != "node_id")
OWN_KEYS = {
    "hostname": "hostname",
    "port": "postgresql_port",
    "raft_port": "raft_port",
    "http_port": "http_port",
}
"""Field of an entry → the key that says the same of this node."""


def node_key(node_id: int, field: str) -> str:
    """The key of one field of one node."""
    return f"node_{node_id}_{field}"
