"""The replicated state of a cluster: what every node agrees on.

Lives here: frozen values only. Changing them is `ramd.state`'s business, judging them
`ramd.policy`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ramd.domain.lsn import Lsn
from ramd.domain.sync import SyncMode, SyncRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One node of the cluster and where to find it. `node_id` is 1..9, `name` unique."""

    node_id: int
    name: str
    hostname: str
    postgresql_port: int
    raft_port: int
    http_port: int
    priority: int = 50
    """0–100; the higher is preferred among equally advanced candidates."""
    nofailover: bool = False
    nosync: bool = False
    """Never waited for by commits."""

    @property
    def raft_address(self) -> str:
        """Where its peers dial it: host:port, with brackets around IPv6."""
        host = f"[{self.hostname}]" if ":" in self.hostname else self.hostname
        return f"{host}:{self.raft_port}"


class StartMode(StrEnum):
    """How the holder of a grant becomes primary."""

    OPEN = "open"
    """Start the server as a primary on the timeline it has: first epoch only (initdb, adoption)."""
    PROMOTE = "promote"
    """Promote a running replica onto the timeline that the grant names."""
    RESUME = "resume"
    """Go on with the server of the epoch before, which was fenced for a switchover that does not
    take place and has run ever since: same node, same timeline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reign:
    """One epoch: who is primary, on which timeline, and where that timeline left its parent.

    The list of reigns is the only judge of lineage (rule S6). `fork_lsn` is None until the new
    primary has reported where its timeline begins; `seal_lsn` is the elected node's position when
    it was chosen. The fork lies there or, if the WAL received so far ended within a record, where
    that record began. `since_unix_ms` is for people only.
    """

    epoch: int
    node_id: int
    timeline: int
    start: StartMode
    parent_timeline: int | None = None
    fork_lsn: Lsn | None = None
    seal_lsn: Lsn | None = None
    since_unix_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Cluster-wide settings; initial values come from the coordinator's configuration file."""

    auto_failover_enabled: bool = True
    maximum_lag_on_failover: int = 0
    """Bytes a candidate may be behind the last known position of the primary; 0 = no bound."""
    startup_grace_ms: int = 30_000
    synchronous_replication: SyncMode = SyncMode.AUTO
    num_sync_standbys: int = 1
    """How many replicas must confirm a commit."""
    sync_standby_names: tuple[str, ...] = ()
    """Names of the nodes that may confirm; () = all that are not tagged nosync."""
    enforce_sync_standbys: bool = False
    """Writes wait rather than go on with fewer replicas."""
    sync_replication_timeout_ms: int = 10_000
    """How long too few replicas are waited for, unless that is enforced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """A person asked for a planned switchover away from the primary of `epoch`."""

    epoch: int
    target: int | None
    """Wanted node, or None for the best candidate."""
    requested_by: str = ""
    operation: str = ""
    accept_loss: bool = False
    """A person was told that acknowledged commits may be lost, and wants it all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """The cluster is being destroyed; every daemon finishes when it sees this."""

    remove_data: bool
    requested_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """A node that may join once, with the token that carries `nonce`.

    Void after `expires_unix_ms`, by the wall clock of whoever coordinates then. `replaces`: the
    member whose place it takes, in one change with its own promotion to voter.
    """

    member: Member
    nonce: str
    expires_unix_ms: int
    replaces: int | None = None
    requested_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """`node_id` is to leave the group: at once or, with a `successor`, when that can vote.

    One that leaves at once is nobody's choice for primary any more.
    """

    node_id: int
    successor: int | None = None
    requested_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinit:
    """A person wants `copy`, which `node_id` holds, made anew: kept aside, the primary cloned.

    It stands until the node streams with another copy, becomes primary or is no member any more.
    """

    node_id: int
    copy: str
    requested_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One part of a change of primary, in order; `total` is from the last to the first write."""

    name: str
    ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """One decision as it is kept in the replicated history (rule S8).

    `details` holds inputs, candidates and rejections as plain text lines, already bounded.
    """

    epoch: int
    rule: str
    action: str
    reason: str
    details: tuple[str, ...] = ()
    actor: str = "policy"
    at_unix_ms: int = 0
    phases: tuple[Phase, ...] = ()
    """Of a grant, once its primary takes writes: how long it took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """Everything Raft replicates. A few kilobytes however long the history (bounded lists)."""

    cluster_id: str = ""
    cluster_name: str = ""
    members: tuple[Member, ...] = ()
    settings: Settings = field(default_factory=Settings)
    settings_orders: tuple[str, ...] = ()
    """Operations of the last orders that changed the settings."""
    system_id: str = ""
    """PostgreSQL's system identifier, recorded by the first primary; '' until then."""
    reigns: tuple[Reign, ...] = ()
    timeline_high: int = 0
    """Highest timeline number ever named by a grant."""
    handover: Handover | None = None
    removal: Removal | None = None
    sync: SyncRecord = field(default_factory=SyncRecord)
    invitations: tuple[Invitation, ...] = ()
    """Nodes that were added and have not joined yet."""
    departures: tuple[Departure, ...] = ()
    """Members that are to leave the group."""
    reinits: tuple[Reinit, ...] = ()
    """Copies that are to be made anew, one of a node at the most."""
    spent: tuple[str, ...] = ()
    """Nonces of the last tokens that were used."""
    decisions: tuple[DecisionRecord, ...] = ()
    failover_count: int = 0
    applied_index: int = 0
    changed_unix_ms: int = 0
    """When the topology last changed, for people."""

    @property
    def formed(self) -> bool:
        return bool(self.cluster_id)

    @property
    def reign(self) -> Reign | None:
        """The last committed grant: who is primary now."""
        return self.reigns[-1] if self.reigns else None

    @property
    def epoch(self) -> int:
        return self.reigns[-1].epoch if self.reigns else 0

    def member(self, node_id: int) -> Member | None:
        return next((m for m in self.members if m.node_id == node_id), None)

    def invitation(self, node_id: int) -> Invitation | None:
        """The one by which `node_id` may join."""
        return next((i for i in self.invitations if i.member.node_id == node_id), None)

    def departure(self, node_id: int) -> Departure | None:
        """How `node_id` is to leave; None: it stays."""
        return next((d for d in self.departures if d.node_id == node_id), None)

    def reinit(self, node_id: int) -> Reinit | None:
        """The order to make the copy of `node_id` anew; None: there is none."""
        return next((r for r in self.reinits if r.node_id == node_id), None)
