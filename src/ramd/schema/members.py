"""Bodies and answers of the requests by which members come and go."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ramd.schema.envelope import TIMESTAMP, Answer
from ramd.schema.requests import NODES_MAX, PortNumber, Request

Selector = (
    Annotated[int, Field(ge=1, le=NODES_MAX)] | Annotated[str, Field(min_length=1, max_length=63)]
)


class AddNodeRequest(Request):
    """Invite a node. What is left out is chosen: the lowest free id, this daemon's host and ports,
    on the same host moved on by the distance of the ids."""

    node_id: Annotated[int, Field(ge=1, le=NODES_MAX)] | None = None
    hostname: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    port: PortNumber | None = None
    """PostgreSQL's."""
    raft_port: PortNumber | None = None
    http_port: PortNumber | None = None
    name: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    priority: Annotated[int, Field(ge=0, le=100)] = 50
    nofailover: bool = False
    replace: Selector | None = None
    """The member whose place it takes: id, name or selector."""


class RemoveNodeRequest(Request):
    """Take a node out of the group; exactly one of the three names it."""

    node_id: Annotated[int, Field(ge=1, le=NODES_MAX)] | None = None
    name: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    node_address: Annotated[str, Field(min_length=1, max_length=260)] | None = None
    """Its hostname, or host:port with PostgreSQL's port."""


class AddVoterRequest(Request):
    """Give a learner a vote now."""

    node_id: Annotated[int, Field(ge=1, le=NODES_MAX)]


class ReinitRequest(Request):
    """Make a replica's copy anew; the path names it."""


class AddNodeData(Answer):
    """POST /cluster/add-node: the node may join until `expires_at`."""

    node_id: int
    name: str
    hostname: str
    port: int
    raft_port: int
    http_port: int
    replaces_node_id: int | None
    join_token: str
    """For the file that the new node's join_token_file names, mode 0600. Good once."""
    expires_at: str = Field(pattern=TIMESTAMP)
    conf: tuple[str, ...]
    """The lines of the new node's ramd.conf."""


class RemoveNodeData(Answer):
    """POST /cluster/remove-node."""

    node_removed: int
    name: str
    invitation_withdrawn: bool
    """It had been invited and never joined."""


class AddVoterData(Answer):
    """POST /cluster/add-voter."""

    node_id: int
    voters: tuple[int, ...]


class ReinitData(Answer):
    """POST /nodes/{id}/reinit: the order is recorded."""

    node_reinitialized: int
    name: str
    done: bool
    """It streams with the new copy; false: it is still at it, and goes on by itself."""
    activity: str
    """What the node's daemon is doing with it, for people."""
