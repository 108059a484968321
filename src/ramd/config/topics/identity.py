"""Who this node is, and which cluster it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ramd.config.keys import (
    Addresses,
    Availability,
    Host,
    Key,
    Name,
    OptionalHost,
    OptionalName,
    OptionalPath,
    Port,
    RequiredPath,
    Switch,
    Topic,
    Whole,
)


class IdentityKeys(Topic):
    """Node and cluster."""

    node_id: Annotated[
        Whole,
        Field(ge=1, le=9),
        Key(
            "Number of this node; unique in its cluster.",
            danger="A node that comes back under another number is another node to the group.",
        ),
    ] = 1
    node_name: Annotated[
        OptionalName,
        Key(
            "Name of this node beside its number.",
            default_text="node<node_id>",
            accepts="letters, digits, '_', '.' and '-', at most 63",
        ),
    ] = ""
    hostname: Annotated[
        Host,
        Key(
            "Name or IP address at which the other nodes and clients reach this host.",
            default_text="node_<node_id>_hostname, else localhost",
            accepts="an IP address or host name",
        ),
    ] = "localhost"
    cluster_name: Annotated[
        Name,
        Key(
            "Name of the cluster; the same on every node.",
            accepts="letters, digits, '_', '.' and '-', at most 63",
        ),
    ] = "ram_cluster"
    cluster_size: Annotated[
        Whole,
        Field(ge=1, le=9),
        Key(
            "Number of nodes; must agree with the node list if there is one.",
            default_text="length of the node list, else 3",
            danger="Two nodes cannot outvote the loss of one: use an odd number.",
        ),
    ] = 3
    node_priority: Annotated[
        Whole,
        Field(ge=0, le=100),
        Key("The higher is preferred among equally advanced candidates for primary."),
    ] = 50
    nofailover: Annotated[Switch, Key("Never promote this node automatically.")] = False
    raft_port: Annotated[
        Port,
        Key("Port of the channel between the daemons (`rale_port` is its old name)."),
    ] = 7400
    raft_bind_address: Annotated[
        OptionalHost,
        Key(
            "Address on which `raft_port` listens.",
            default_text="127.0.0.1 if every node is on this host, else all addresses",
            accepts="an IP address or host name of this host",
        ),
    ] = ""
    cluster_secret_file: Annotated[
        OptionalPath,
        Key(
            "File with the secret that the daemons prove to each other; equal on every host.",
            default_text="made in state_dir by a local `cluster create`",
            accepts="an absolute path of a file that only its owner can read",
            danger="Whoever reads it can vote in the cluster.",
        ),
    ] = None
    state_dir: Annotated[
        RequiredPath,
        Key(
            "Directory of the daemon's own state: votes, log, identity, generated configuration.",
            default_text="<postgresql_data_dir>.ramd",
            accepts="an absolute path outside postgresql_data_dir",
            danger="A node whose state is lost or copied is refused by its group.",
        ),
    ] = Path()
    join: Annotated[
        Addresses,
        Key(
            "Where to ask to join an existing cluster: raft addresses of its nodes. Read while this"
            " node has no state of its own.",
            accepts="host:raft_port of one or more nodes, separated by commas",
        ),
    ] = ()
    join_token_file: Annotated[
        OptionalPath,
        Key(
            "File with the token that `ramctrl nodes add` answered; needed until the node has"
            " joined.",
            accepts="an absolute path of a file that only its owner can read",
        ),
    ] = None
    dstore_port: Annotated[
        Whole,
        Field(ge=0, le=65535),
        Key(
            "Port of a store that RAMD does not have; its state is in Raft.",
            availability=Availability.RETIRED,
        ),
    ] = 0
