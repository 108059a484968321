"""What an answer about the group says to a person: envelope data → Page. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ramctrl.page import NONE, UNKNOWN, Page, known, size_text, span

COLUMNS = (
    *("ID", "NAME", "VOTE", "RAFT", "TOUCH", "TERM", "COMMIT", "APPLIED", "MATCH", "CONTACT"),
    "NOTE",
)
ELECTIONS_SHOWN = 5


def status_page(data: Mapping[str, Any]) -> Page:
    """`quorum status`."""
    return Page(
        verdict=(str(data.get("cluster_status", UNKNOWN)), str(data.get("reason") or "")),
        facts=(
            ("cluster", f"{data.get('cluster_name')} (group {data.get('group_id')})"),
            ("coordinator", _coordinator(data)),
            ("answered by", f"node {data.get('answered_by_node_id')}, {data.get('raft_role')}"),
            ("quorum", _quorum(data)),
            ("log", _log(data)),
            ("disk", _disk(data.get("disk_sync"))),
            ("elections", _elections(data)),
            ("loop", _loop(data)),
            ("snapshots", _snapshots(data)),
            ("refused", _refused(data)),
        ),
        columns=COLUMNS,
        rows=tuple(_row(member, data) for member in data.get("members") or ()),
        notes=_notes(data),
    )


def _coordinator(data: Mapping[str, Any]) -> str:
    moving = data.get("transfer_to_node_id")
    to = f", being handed over to node {moving}" if moving else ""
    who = known(data.get("leader_node_id"), "node {}", missing="none known")
    return f"{who}, term {data.get('term')}{to}"


def _quorum(data: Mapping[str, Any]) -> str:
    joint = "; JOINT: both the old and the new majority are needed" if data["joint_change"] else ""
    learners = f", {data['learners']} learners" if data.get("learners") else ""
    return (
        f"{data.get('voters_reachable')}/{data.get('voters')} voters in touch, "
        f"{data.get('majority')} needed{learners}{joint}"
    )


def _log(data: Mapping[str, Any]) -> str:
    return (
        f"last {data.get('last_index')}, commit {data.get('commit_index')}, "
        f"applied {data.get('applied_index')}, snapshot at {data.get('snapshot_index')}, "
        f"{data.get('log_entries')} entries kept"
    )


def _disk(sync: object) -> str:
    if not isinstance(sync, Mapping):
        return UNKNOWN
    return (
        f"sync {sync['p50_ms']:.1f} ms (median), {sync['p99_ms']:.1f} ms (99 %), "
        f"{sync['max_ms']:.1f} ms (longest)"
    )


def _elections(data: Mapping[str, Any]) -> str:
    begun = data.get("elections_begun") or {}
    total = ", ".join(f"{count} by {reason}" for reason, count in sorted(begun.items()))
    return f"begun here: {total or 'none'}"


def _loop(data: Mapping[str, Any]) -> str:
    return f"{data.get('loop_pauses')} pauses, longest delay {data.get('loop_pause_max_ms')} ms"


def _snapshots(data: Mapping[str, Any]) -> str:
    kinds = ("taken", "sent", "installed")
    return ", ".join(f"{data.get(f'snapshots_{kind}')} {kind}" for kind in kinds)


def _refused(data: Mapping[str, Any]) -> str:
    refused = data.get("connections_refused") or {}
    counted = ", ".join(f"{count} {code}" for code, count in sorted(refused.items()))
    return f"{counted or 'no'} connections, {data.get('frames_dropped')} frames dropped"


def _row(member: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[str, ...]:
    note = "leaves" if member.get("leaving") else ""
    match, last = member.get("match_index"), data.get("last_index")
    if match is not None and last is not None and match < last:
        note = f"{note}, {last - match} entries behind".lstrip(", ")
    contact_ms = member.get("last_contact_ms")
    coordinates = member.get("id") == data.get("leader_node_id")
    return (
        str(member.get("id")),
        str(member.get("name")),
        "voter" if member.get("voter") else "learner",
        "coordinator" if coordinates else known(member.get("raft_role")),
        "yes" if member.get("reachable") else "NO",
        known(member.get("term")),
        known(member.get("commit_index")),
        known(member.get("applied_index")),
        known(match, missing=NONE),
        NONE if contact_ms is None else f"{span(contact_ms / 1000)} ago",
        note,
    )


def _notes(data: Mapping[str, Any]) -> tuple[str, ...]:
    notes = [
        f"{span(one['age_ms'] / 1000)} ago, term {one['term']}: {one['reason']}"
        for one in (data.get("elections") or ())[:ELECTIONS_SHOWN]
    ]
    coordinator, asked = data.get("leader_node_id"), data.get("answered_by_node_id")
    if coordinator is not None and coordinator != asked:
        notes.append(f"how far every member is, only node {coordinator} knows: ask its daemon")
    return tuple(notes)


# --- recovery --------------------------------------------------------------------------------


def recovery_page(data: Mapping[str, Any]) -> Page:
    """`quorum recover`: the plan, or what was done."""
    done = bool(data.get("recovered"))
    return Page(
        verdict=("done" if done else "plan", _sentence(data)),
        facts=(
            ("cluster", str(data.get("cluster_name"))),
            ("log", _log_end(data)),
            ("last contact", _contact(data)),
            ("may be lost of the log", "all that the others agreed on after that contact"),
            ("WAL here", _wal(data)),
            ("may be lost of the WAL", _lost_bytes(data)),
            ("last primary", known(data.get("last_primary_node_id"), "node {}", missing="none")),
            ("waits", f"{data.get('wait_ms')} ms, so that no lease of the old group is left"),
            *((("took", f"{data.get('recovery_time_ms')} ms"),) if done else ()),
        ),
        columns=("ID", "NAME", "VOTE", "CONTACT", "WAL", "TL"),
        rows=tuple(_lost_row(node) for node in data.get("lost_nodes") or ()),
        notes=_after(data) if done else _before(data),
    )


def _sentence(data: Mapping[str, Any]) -> str:
    node = f"node {data.get('node_id')}"
    if not data.get("recovered"):
        return f"nothing was done; {node} would go on alone, the nodes below are given up"
    primary = data.get("primary_node_id")
    serves = "and accepts writes" if primary is not None else "but nobody is primary yet"
    return f"{node} goes on alone {serves}"


def _log_end(data: Mapping[str, Any]) -> str:
    uncertain = data.get("uncertain_entries")
    text = f"ends at index {data.get('last_index')}, term {data.get('term')}"
    if uncertain:
        return f"{text}; whether its last {uncertain} entries were committed is not known"
    return text


def _contact(data: Mapping[str, Any]) -> str:
    age_ms = data.get("last_contact_ms")
    return "none since this daemon started" if age_ms is None else f"{span(age_ms / 1000)} ago"


def _wal(data: Mapping[str, Any]) -> str:
    if data.get("lsn") is None:
        return UNKNOWN
    vote = "" if data.get("voter") else "; THIS NODE HAD NO VOTE"
    return f"{data.get('lsn')} on timeline {data.get('timeline')}{vote}"


def _lost_bytes(data: Mapping[str, Any]) -> str:
    least, best = data.get("lost_bytes_min"), data.get("best_node_id")
    if least is None:
        return "not known"
    if least == 0:
        return "what no other node was ever seen to hold: not known"
    return f"at least {size_text(least)} that node {best} was seen to hold; more is not known"


def _lost_row(node: Mapping[str, Any]) -> tuple[str, ...]:
    age_ms = node.get("last_contact_ms")
    return (
        str(node.get("id")),
        str(node.get("name")),
        "voter" if node.get("voter") else "learner",
        "never" if age_ms is None else f"{span(age_ms / 1000)} ago",
        known(node.get("lsn")),
        known(node.get("timeline")),
    )


def _before(data: Mapping[str, Any]) -> tuple[str, ...]:
    voters = ",".join(str(n["name"]) for n in data.get("lost_nodes") or () if n.get("voter"))
    name = data.get("cluster_name")
    command = f"ramctrl quorum recover --yes --cluster-name {name} --confirmed-off {voters}"
    return (
        "First switch these hosts off for good: two that come back together are a majority.",
        f"Then: {command}",
    )


def _after(data: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"The group's new id is {data.get('new_cluster_id')}; the old members are refused by it.",
        "To bring one back: move its state directory aside, then ramctrl nodes add.",
    )
