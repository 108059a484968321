"""The one interface between the daemon and its face (HTTP): what people may read and ask for.

Lives here: the protocol `Service` and the frozen values it speaks in. Must not live here: HTTP,
rendering, decisions. Start reading at `Service`. Times are CLOCK_BOOTTIME nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from ramd.domain.consensus import GroupStatus
from ramd.domain.decision import ClusterView
from ramd.domain.model import ClusterState, Member
from ramd.domain.observation import Heard
from ramd.domain.quorum import RecoverRequest, RecoverResult
from ramd.domain.sync import SyncOrder


class DaemonStatus(StrEnum):
    """Whether this daemon takes work, in the words of the REST API."""

    RUNNING = "running"
    STOPPING = "stopping"


class Stage(StrEnum):
    """How far this daemon is on its way into a cluster."""

    CLUSTERLESS = "clusterless"
    FORMING = "forming"
    """Waiting for, or agreeing with, the other listed members."""
    FORMED = "formed"
    REMOVED = "removed"
    """A person removed this node from its cluster; it stays out until it is added again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonFacts:
    """What is true of this daemon alone, with or without a cluster."""

    version: str
    node_id: int
    name: str
    started_ns: int
    status: DaemonStatus = DaemonStatus.RUNNING
    stage: Stage = Stage.CLUSTERLESS
    forming_text: str = ""
    """FORMING: what is being waited for; REMOVED: how the node comes back; one line for people;
    else ''."""
    authentication: str = "trust"
    """How clients by TCP prove who they are to PostgreSQL: "trust" or "scram-sha-256"."""
    lease_ttl_ms: int = 3_000
    """Judges liveness: a control loop that has not turned for longer is not alive."""
    certificate_until_unix_s: float | None = None
    """When the certificate in force expires; None: no TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything the API may show: one coherent picture, replaced whole by the control loop.

    `group` is None before a cluster exists. `heard` holds the latest observation of each node, this
    one included; a member that was never heard is absent. `lease_*` is this node's own lease as its
    holder (deadline 0: none), to be compared with `Service.now_ns()` at the time of the answer.
    """

    taken_ns: int
    """When the control loop made it."""
    daemon: DaemonFacts
    state: ClusterState = field(default_factory=ClusterState)
    group: GroupStatus | None = None
    heard: tuple[Heard, ...] = ()
    lease_epoch: int = 0
    lease_deadline_ns: int = 0
    view: ClusterView | None = None
    """What `decide` would look at here; None before a cluster exists."""

    def of(self, node_id: int) -> Heard | None:
        """The latest that was heard of `node_id`; None: nothing ever."""
        return next((h for h in self.heard if h.observation.node_id == node_id), None)

    def lease_left_ms(self, now_ns: int) -> int:
        """How much of this node's own lease of the present epoch is left; 0: none."""
        if self.lease_deadline_ns == 0 or self.lease_epoch != self.state.epoch:
            return 0
        return max(0, self.lease_deadline_ns - now_ns) // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """A cluster of `num_nodes` (1..9) on this host. None and '' mean: RAMD's own choice."""

    num_nodes: int
    primary_port: int | None = None
    replica_ports: tuple[int, ...] = ()
    data_dir: str = ""
    log_dir: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateResult:
    """The cluster stands: its primary accepts writes and every replica streams."""

    cluster_id: str
    cluster_name: str
    primary_node: int
    replica_nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyRequest:
    """Finish the cluster. `remove_data` needs `cluster_name` to be the cluster's own name, else
    Refused; without it data directories are renamed aside."""

    remove_data: bool = False
    cluster_name: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyResult:
    """The removal is committed. `nodes_stopped` have confirmed the end of their server;
    `nodes_silent` have not answered (they finish when they see the record)."""

    cluster_name: str
    nodes_stopped: tuple[int, ...]
    nodes_silent: tuple[int, ...] = ()
    kept_aside: tuple[str, ...] = ()
    """Directories renamed aside, as far as they are known here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverRequest:
    """Move the primary to node `target`, or to the best candidate if None."""

    target: int | None = None
    actor: str = ""
    accept_loss: bool = False
    """Also one that may lack acknowledged commits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverResult:
    """`new_primary` accepts writes in `epoch`. `outage_ms`: how long no server was able to accept
    a write, None if that is not known; `failover_time_ms`: from request to result."""

    old_primary: int | None
    new_primary: int
    failover_time_ms: int
    epoch: int
    outage_ms: int | None = None
    phases: tuple[tuple[str, int], ...] = ()
    """What the time without writes went to, ms, in order; () if that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncChange:
    """Change how commits wait for replicas."""

    order: SyncOrder
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddNodeRequest:
    """Invite a node. None and '' mean: RAMD's own choice. `replaces`: whose place it takes."""

    node_id: int | None = None
    hostname: str = ""
    postgresql_port: int | None = None
    raft_port: int | None = None
    http_port: int | None = None
    name: str = ""
    priority: int = 50
    nofailover: bool = False
    replaces: int | None = None
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncChanged:
    """The settings are committed. `settled`: the primary goes by them already, as proven."""

    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AddNodeResult:
    """The invitation stands. `token` is a secret until it is used; `conf` are the lines that the
    new node's ramd.conf needs."""

    member: Member
    token: str
    expires_unix_ms: int
    conf: tuple[str, ...]
    replaces: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNodeRequest:
    """Take `node_id` out of the group; its data stay where they are."""

    node_id: int
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNodeResult:
    """The node is no member any more. `withdrawn`: it had only been invited."""

    node_id: int
    name: str
    withdrawn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AddVoterRequest:
    """Give the learner `node_id` a vote now."""

    node_id: int
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddVoterResult:
    """Who votes now."""

    node_id: int
    voters: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinitRequest:
    """Make the copy of the data on replica `node_id` anew."""

    node_id: int
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinitResult:
    """The order is committed. `done`: the node streams with a new copy; else it goes on by itself,
    and `activity` is the last that was heard of it."""

    node_id: int
    name: str
    done: bool
    activity: str = ""


class Service(Protocol):
    """What people may read and ask for.

    Reads may be called from any thread and never wait. Writes run on the control loop; each ends
    within `timeout_s` and raises a RamdError with a code of `CODES` (OutcomeUnknown if it may or
    may not have happened).
    """

    def now_ns(self) -> int:
        """CLOCK_BOOTTIME now, the clock of every `*_ns` in `snapshot()`."""

    def snapshot(self) -> Snapshot: ...

    async def create(self, request: CreateRequest, *, timeout_s: float) -> CreateResult: ...

    async def destroy(self, request: DestroyRequest, *, timeout_s: float) -> DestroyResult: ...

    async def failover(self, request: FailoverRequest, *, timeout_s: float) -> FailoverResult: ...

    async def change_sync(self, change: SyncChange, *, timeout_s: float) -> SyncChanged: ...
    async def add_node(self, request: AddNodeRequest, *, timeout_s: float) -> AddNodeResult: ...

    async def remove_node(
        self, request: RemoveNodeRequest, *, timeout_s: float
    ) -> RemoveNodeResult: ...

    async def add_voter(self, request: AddVoterRequest, *, timeout_s: float) -> AddVoterResult: ...

    async def reinit(self, request: ReinitRequest, *, timeout_s: float) -> ReinitResult: ...

    async def recover_quorum(
        self, request: RecoverRequest, *, timeout_s: float
    ) -> RecoverResult: ...
