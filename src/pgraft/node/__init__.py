"""The shell around the core: one member of a group, with its log, its peers and its timers.

Lives here: `shell` (a member's life), `asking` (what any member can be asked), `driver` (step,
persist, send, apply), `writer` (the one thread that syncs), `waiting` (who waits for what),
`origins` (commands proposed twice), `snapshots` (when one is taken), `admission` (who asks to
join), `peers` (whom the transport connects), `lease` (the lease as the host touches it), `clock`
(whether it runs evenly), `counts` (what a member has done). Must not live here: rules of Raft or of
the lease (`pgraft.core`), what a command means (the host). Start reading at `shell.Node`.
"""

from pgraft.node.asking import ProposalUnknown, ReadFailed
from pgraft.node.counts import ElectionNote, NodeStatus
from pgraft.node.driver import boottime_ns
from pgraft.node.shell import Hooks, Node, NodeFailed, NodeOptions, open_node
from pgraft.node.snapshots import SnapshotOptions

__all__ = [
    "Node",
    "NodeOptions",
    "NodeStatus",
    "ElectionNote",
    "SnapshotOptions",
    "Hooks",
    "open_node",
    "NodeFailed",
    "ProposalUnknown",
    "ReadFailed",
    "boottime_ns",
]
