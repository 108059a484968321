"""The shell around the core: one member of a group, with its log, its peers and its timers.

Lives here: `shell` (the API for the host), `driver` (step, persist, send, apply), `writer` (the one
thread that syncs), `waiting` (who waits for what), `lease` (the lease as the host touches it),
`counts` (what a member has done). Must not live here: rules of Raft or of the lease
(`pgraft.core`), what a command means (the host). Start reading at `shell.Node`.
"""

from pgraft.node.counts import NodeStatus
from pgraft.node.driver import boottime_ns
from pgraft.node.shell import (
    Hooks,
    Node,
    NodeFailed,
    NodeOptions,
    ProposalUnknown,
    ReadFailed,
    open_node,
)

__all__ = [
    "Node",
    "NodeOptions",
    "NodeStatus",
    "Hooks",
    "open_node",
    "NodeFailed",
    "ProposalUnknown",
    "ReadFailed",
    "boottime_ns",
]
