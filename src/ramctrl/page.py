"""What an answer says to a person, before anybody decides how it looks.

Lives here: envelope data → Page (a verdict, labelled facts, one table of text cells). Pure; `now_s`
is handed in. Must not live here: colours, widths, printing. What is not known is "unknown".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

UNKNOWN = "unknown"
NONE = "-"

GOOD = "good"
WARN = "warn"
BAD = "bad"
TONES = {
    "done": GOOD,
    "plan": WARN,
    "NO": BAD,
    "healthy": GOOD,
    "degraded": WARN,
    "critical": BAD,
    "running": GOOD,
    "starting": WARN,
    "rejoining": WARN,
    "stopped": BAD,
    "crashed": BAD,
    "hung": BAD,
    "unknown": BAD,
}
"""How serious a word is, for whoever can show it."""

NODE_COLUMNS = ("ID", "NAME", "ROLE", "STATE", "ADDRESS", "TL", "LAG", "SEEN", "NOTE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One screen. `verdict` is (word, sentence); the word is coloured by TONES."""

    verdict: tuple[str, str]
    facts: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = field(default=())


def status_page(data: Mapping[str, Any], now_s: float) -> Page:
    """`cluster status`: the verdict, the group, every node."""
    decision = data.get("last_decision")
    facts = [
        ("cluster", f"{data.get('cluster_name')} ({data.get('cluster_id')})"),
        ("primary", _primary(data)),
        ("coordinator", _coordinator(data)),
        ("failover", _failover(data, now_s)),
    ]
    sync = data.get("sync")
    if isinstance(sync, Mapping):
        facts.append(("commits wait for", str(sync.get("waits_for"))))
    if isinstance(decision, Mapping):
        facts.append(("last decision", f"{decision.get('reason')} [{decision.get('rule')}]"))
    return Page(
        verdict=_verdict(data),
        facts=tuple(facts),
        columns=NODE_COLUMNS,
        rows=tuple(_node_row(node) for node in data.get("nodes") or ()),
    )


def health_page(data: Mapping[str, Any]) -> Page:
    """`cluster health`: the verdict and its numbers."""
    return Page(
        verdict=_verdict(data),
        facts=(
            ("healthy nodes", f"{data.get('healthy_nodes')} of {data.get('total_nodes')}"),
            ("primary", known(data.get("primary_node_id"), "node {}")),
            ("replication lag", known(data.get("replication_lag_ms"), "{} ms")),
        ),
    )


def nodes_page(data: Mapping[str, Any]) -> Page:
    """`nodes list`."""
    nodes = data.get("nodes") or ()
    healthy = sum(1 for node in nodes if node.get("healthy"))
    word = "healthy" if healthy == len(nodes) else "degraded"
    return Page(
        verdict=(word, f"{healthy} of {len(nodes)} nodes do their part"),
        columns=NODE_COLUMNS,
        rows=tuple(_node_row(node) for node in nodes),
    )


def node_page(node: Mapping[str, Any]) -> Page:
    """`nodes show`: everything about one node."""
    trouble = node.get("trouble") or ""
    return Page(
        verdict=("healthy", "does its part") if not trouble else ("degraded", str(trouble)),
        facts=(
            ("node", f"{node.get('id')} ({node.get('name')})"),
            ("role", str(node.get("role"))),
            ("state", str(node.get("state"))),
            ("doing", str(node.get("activity") or NONE)),
            ("PostgreSQL", f"{_address(node)}, version {known(node.get('postgresql_version'))}"),
            ("up for", span(node.get("uptime_seconds"))),
            ("timeline", known(node.get("timeline"))),
            ("WAL position", known(node.get("lsn"))),
            ("fence", known(node.get("fence"), missing=NONE)),
            ("streams from", known(node.get("upstream_node_id"), "node {}", missing=NONE)),
            ("lag", _lag(node)),
            ("last seen", _seen(node)),
            ("priority", _priority(node)),
            ("vote", _vote(node)),
        ),
    )


def created_page(data: Mapping[str, Any]) -> Page:
    """`cluster create`."""
    primary = known(data.get("primary_address"))
    host, _, port = primary.rpartition(":")
    return Page(
        verdict=(
            "done",
            f"cluster {data.get('cluster_name')} created: {data.get('nodes_created')} nodes",
        ),
        facts=(
            ("cluster id", str(data.get("cluster_id"))),
            ("primary", primary),
            ("replicas", ", ".join(str(r) for r in data.get("replica_addresses") or ()) or NONE),
        ),
        notes=(f"connect: psql -h {host} -p {port} -U postgres -d postgres",) if host else (),
    )


def destroyed_page(data: Mapping[str, Any]) -> Page:
    """`cluster destroy`."""
    name, stopped = f"cluster {data.get('cluster_name')}", data.get("nodes_stopped")
    silent = [str(node) for node in data.get("nodes_silent") or ()]
    notes = [f"kept aside: {path}" for path in data.get("kept_aside") or ()]
    if silent:
        notes.append(f"not heard: node {', '.join(silent)}; it finishes when it sees the record")
    return Page(
        verdict=("degraded" if silent else "done", f"{name} destroyed: {stopped} servers stopped"),
        notes=tuple(notes),
    )


def failover_page(data: Mapping[str, Any]) -> Page:
    """`cluster failover`: old → new, and how long it took."""
    old = known(data.get("old_primary"), "node {}", missing="no primary")
    return Page(
        verdict=("done", f"{old} → node {data.get('new_primary')}"),
        facts=(
            ("took", known(_took(data), "{} ms")),
            ("without writes", known(data.get("outage_ms"), "{} ms")),
            ("epoch", known(data.get("epoch"))),
            *((str(phase["name"]), f"{phase['ms']} ms") for phase in _parts(data)),
        ),
    )


def _took(data: Mapping[str, Any]) -> object:
    return data.get("failover_time_ms", data.get("demotion_time_ms"))


def _parts(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the time without writes went to; the sum of it is told already."""
    return [phase for phase in data.get("phases") or () if phase.get("name") != "total"]


def _verdict(data: Mapping[str, Any]) -> tuple[str, str]:
    return str(data.get("cluster_status", UNKNOWN)), str(data.get("reason") or "")


def _primary(data: Mapping[str, Any]) -> str:
    if data.get("primary_node_id") is None:
        return "none"
    return (
        f"node {data['primary_node_id']}, epoch {known(data.get('epoch'))}, "
        f"timeline {known(data.get('timeline'))}"
    )


def _coordinator(data: Mapping[str, Any]) -> str:
    quorum = "quorum" if data.get("has_quorum") else "NO QUORUM"
    who = known(data.get("leader_node_id"), "node {}")
    return f"{who}, term {known(data.get('term'))}, {quorum}"


def _failover(data: Mapping[str, Any], now_s: float) -> str:
    mode = "automatic" if data.get("auto_failover_enabled") else "NOT automatic"
    count = f"{data.get('failover_count')} so far"
    changed = data.get("last_topology_change")
    try:
        changed_s = datetime.fromisoformat(str(changed)).timestamp()
    except ValueError:
        return f"{mode}, {count}"
    return f"{mode}, {count}, last change {span(max(0.0, now_s - changed_s))} ago"


def _node_row(node: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(node.get("id")),
        str(node.get("name")),
        str(node.get("role")),
        str(node.get("state")),
        _address(node),
        known(node.get("timeline")),
        _lag(node),
        _seen(node),
        str(node.get("trouble") or node.get("activity") or ""),
    )


def _address(node: Mapping[str, Any]) -> str:
    return f"{node.get('hostname')}:{node.get('port')}"


def _lag(node: Mapping[str, Any]) -> str:
    if node.get("role") == "primary":
        return NONE
    behind, late_ms = node.get("replication_lag_bytes"), node.get("replication_lag_ms")
    if behind is None and late_ms is None:
        return UNKNOWN
    late = UNKNOWN if late_ms is None else f"{late_ms / 1000:.1f} s"
    return f"{size_text(behind)} / {late}"


def size_text(count: int | None) -> str:
    """A number of bytes to one figure after the point."""
    if count is None:
        return UNKNOWN
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"


def _seen(node: Mapping[str, Any]) -> str:
    age_ms = node.get("last_seen_age_ms")
    return "never" if age_ms is None else f"{span(age_ms / 1000)} ago"


def span(seconds: float | None) -> str:
    """A duration to two figures: 0.4 s, 12 s, 3 min, 5 h, 2 d."""
    if seconds is None:
        return UNKNOWN
    if seconds < 10:
        return f"{seconds:.1f} s"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _priority(node: Mapping[str, Any]) -> str:
    never = ", never promoted (nofailover)" if node.get("nofailover") else ""
    return f"{known(node.get('priority'))}{never}"


def _vote(node: Mapping[str, Any]) -> str:
    word = {"voter": "yes", "learner": "no: a learner"}.get(str(node.get("vote")), UNKNOWN)
    return f"{word}, leaving the group" if node.get("leaving") else word


def known(value: object, form: str = "{}", *, missing: str = UNKNOWN) -> str:
    """The value in its form, or that it is not known."""
    return missing if value is None or value == "" else form.format(value)
