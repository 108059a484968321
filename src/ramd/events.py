"""Every event of the daemon, declared once: its fields, its log level and its sentence.

An event is a frozen dataclass. `emit` writes it through stdlib logging as one record: its message
is the filled-in template, the extra fields are `event` (the snake-case name) and the event's own,
so that a JSON formatter shows them as data. No decision is taken here. Start reading at `Event`;
tests look for events with `record.event`, never for sentences.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, fields
from typing import ClassVar

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

_log = logging.getLogger("ramd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. `template` is filled with the fields by `str.format`."""

    level: ClassVar[int] = INFO
    template: ClassVar[str] = ""

    @classmethod
    def name(cls) -> str:
        """`LeaseEnded` → `lease_ended`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    def message(self) -> str:
        return self.template.format(**self.as_fields())

    def as_fields(self) -> dict[str, object]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def emit(event: Event) -> None:
    """Log `event` once, at its own level, on the logger `ramd`."""
    if _log.isEnabledFor(event.level):
        extra = {"event": event.name(), **event.as_fields()}
        _log.log(event.level, "%s", event.message(), extra=extra)


# --- the daemon ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStarted(Event):
    template = "ramd {version} started as node {node_id} ({node_name})"
    version: str
    node_id: int
    node_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStopping(Event):
    template = "stopping: {why}"
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigWarning(Event):
    level = WARNING
    template = "configuration: {key}: {what}"
    key: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumRecovery(Event):
    level = ERROR
    template = (
        "{actor} has this node go on alone: it leaves its group and founds another one; for ever"
        " refused from now on: {lost}"
    )
    actor: str
    lost: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumRecovered(Event):
    level = WARNING
    template = (
        "a group of this node alone, {group_id}, begins where the old one's log ended here: index"
        " {last_index}, term {term}, {uncommitted} entries of it not known to be committed; the old"
        " directory is {aside}"
    )
    group_id: str
    last_index: int
    term: int
    uncommitted: int
    aside: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherGroup(Event):
    level = ERROR
    template = (
        "node {node} belongs to another group of this cluster's name ({why}). If it went on without"
        " this node (quorum recover), this one has to join anew: stop the daemon and the server,"
        " move the state directory aside, then `ramctrl nodes add` there"
    )
    node: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsPortTaken(Event):
    level = ERROR
    template = "no metrics on a port of their own: {why}; http_port serves them at /metrics"
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateLoaded(Event):
    template = "TLS: the certificate of {cert_file} is in force, until {until}"
    cert_file: str
    until: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRefused(Event):
    level = ERROR
    template = "TLS: the files were not taken, the old ones stay in force: {why}"
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopPaused(Event):
    level = WARNING
    template = "the control loop stood still for {gap_ms} ms: hearing the others before judging"
    gap_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRequested(Event):
    template = "{operation} asked for by {actor}: {what}"
    operation: str
    actor: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationFinished(Event):
    template = "{operation} finished after {duration_ms} ms: {outcome}"
    operation: str
    outcome: str
    duration_ms: int


# --- the group and its decisions -------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFormed(Event):
    template = "cluster {cluster_name} formed with {member_count} members"
    cluster_name: str
    member_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorChanged(Event):
    template = "coordinator is now {coordinator} (term {term})"
    coordinator: int | None
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorStarted(Event):
    template = "node {node_id} coordinates in term {term}"
    node_id: int
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRefused(Event):
    level = WARNING
    template = "the grant of epoch {epoch} was refused: {reason}"
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRefused(Event):
    level = WARNING
    template = "coordination could not be moved to node {node_id}: {reason}"
    node_id: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalLost(Event):
    level = WARNING
    template = "the {what} was not committed: {why}"
    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageIgnored(Event):
    level = WARNING
    template = "a message {method} of node {sender} is ignored: {why}"
    method: str
    sender: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryIgnored(Event):
    level = WARNING
    template = "the committed entry {index} changes nothing: {why}"
    index: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FormingWaits(Event):
    template = "{text}"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEnded(Event):
    level = WARNING
    template = "the cluster {cluster_name} was destroyed: {what}"
    cluster_name: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumLost(Event):
    level = WARNING
    template = "no majority of members is reachable (term {term})"
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumBack(Event):
    template = "a majority of members is reachable again (term {term})"
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided(Event):
    template = "decision by rule {rule}: {action}: {reason}"
    rule: str
    action: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochBegan(Event):
    template = "epoch {epoch}: node {holder} is primary on timeline {timeline}"
    epoch: int
    holder: int
    timeline: int


# --- observing this node's server ------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerExited(Event):
    template = "the PostgreSQL server's postmaster exited"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSeen(Event):
    template = "the PostgreSQL server is {state} ({role}, data {data})"
    state: str
    role: str
    data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerHung(Event):
    level = ERROR
    template = "the PostgreSQL server lives but answered none of {probe_count} probes"
    probe_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFailed(Event):
    level = DEBUG
    template = "probing the PostgreSQL server failed: {why}"
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectFailed(Event):
    level = WARNING
    template = "the data directory could not be inspected: {why}"
    why: str


# --- executing goals -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAdopted(Event):
    template = "adopted a running PostgreSQL server (opened for epoch {opened_epoch})"
    opened_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalSet(Event):
    template = "goal: {goal}"
    goal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionStarted(Event):
    level = DEBUG
    template = "from {situation} towards {goal}"
    situation: str
    goal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionFailed(Event):
    level = WARNING
    template = "towards {goal}: {why} (failure {failures}, next try in {retry_ms} ms)"
    goal: str
    why: str
    failures: int
    retry_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOpened(Event):
    template = "opened for writing in epoch {epoch} on timeline {timeline}"
    epoch: int
    timeline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted(Event):
    template = "promoted in epoch {epoch}: timeline {timeline} left {parent_timeline} at {fork}"
    epoch: int
    timeline: int
    parent_timeline: int
    fork: str
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRefused(Event):
    level = ERROR
    template = "epoch {epoch} cannot be led here and is given back: {why}"
    epoch: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReleased(Event):
    template = "epoch {epoch} released ({reason}), end of WAL {end}"
    epoch: int
    reason: str
    end: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionSealed(Event):
    template = "sealed at {position} on timeline {timeline} (epoch {epoch}, attempt {attempt})"
    epoch: int
    attempt: str
    position: str
    timeline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowingUpstream(Event):
    template = "following node {upstream} in epoch {epoch}"
    upstream: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RejoinJudged(Event):
    template = "rejoining node {upstream}: {how}: {why}"
    upstream: int
    how: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLost(Event):
    level = WARNING
    template = "attached to node {upstream} but not streaming for {silent_ms} ms"
    upstream: int
    silent_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Starved(Event):
    level = WARNING
    template = "the server does not come up without WAL {file} (given any by its upstream: {fed})"
    file: str
    fed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneFinished(Event):
    template = "cloned from node {upstream} in {duration_ms} ms"
    upstream: int
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RewindFinished(Event):
    template = "rewound from node {upstream} in {duration_ms} ms"
    upstream: int
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RewindFailed(Event):
    level = WARNING
    template = "rewinding from node {upstream} failed, a clone follows: {why}"
    upstream: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside(Event):
    level = WARNING
    template = "data directory kept aside as {path}: {why}"
    path: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRemoved(Event):
    level = WARNING
    template = "data directory {path} removed as asked"
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFactsUnusable(Event):
    level = ERROR
    template = "{path} cannot be used: {why}"
    path: str
    why: str


# --- the stand-in fence ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceFound(Event):
    template = "the server with process id {pid} checks the lease itself: {guards}"
    pid: int
    guards: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceMissing(Event):
    level = WARNING
    template = (
        "the server will not check the lease itself ({why}): this daemon stops it in time instead,"
        " and cannot while it is frozen or dead"
    )
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionBuilt(Event):
    template = "the extension was built for PostgreSQL {version} in {duration_ms} ms: {path}"
    version: str
    path: str
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceActed(Event):
    level = WARNING
    template = (
        "the server's fence acted: {refused_statements} statements and {refused_commits} commits"
        " refused, {dropped_acks} acknowledgements dropped, {dropped_sync} for a cancelled wait,"
        " {ended_sessions} sessions ended"
    )
    refused_statements: int
    refused_commits: int
    dropped_acks: int
    dropped_sync: int
    ended_sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EnforcementOff(Event):
    level = ERROR
    template = "pgraft.enforce is off: this server acknowledges writes without a lease"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageLost(Event):
    level = ERROR
    template = (
        "{path} was removed under a running daemon and server: both go on with what they hold,"
        " and it is made again at the next start of the server"
    )
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasePublished(Event):
    template = "the server may acknowledge writes in epoch {epoch}"
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLapsed(Event):
    level = ERROR
    template = (
        "the lease of epoch {epoch} has ended, not renewed: the server refuses writes, and takes"
        " them again when the group renews it"
    )
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceBegun(Event):
    level = ERROR
    template = "the lease of epoch {epoch} ends in {left_ms} ms, not renewed: stopping the server"
    epoch: int
    left_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceEnded(Event):
    level = WARNING
    template = "server of epoch {epoch} stopped in {duration_ms} ms, in time: {in_time}"
    epoch: int
    duration_ms: int
    left_ms: int
    in_time: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceStuck(Event):
    level = ERROR
    template = "stopping the server of epoch {epoch} failed and is tried again: {why}"
    epoch: int
    why: str
