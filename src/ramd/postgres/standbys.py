"""How replicas are named where a primary waits for them, and what its configuration says of that.

A stream bears its node's slot and, behind it, which copy of the data it carries: a new copy is
somebody else (attacks C7). Must not live here: files, SQL. Start reading at `Naming`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from ramd.domain.sync import NO_SET, SyncConf, SyncMember, SyncSet
from ramd.postgres.quote import identifier

SLOT_PREFIX = "ramd_node_"
STREAMS = f"^{SLOT_PREFIX}[0-9](_[0-9a-f]{{16}})?$"
"""Names of our streams, as a regular expression of PostgreSQL's."""
NOBODY = f"{SLOT_PREFIX}nobody"
"""Nothing ever streams under this name: who waits for it waits."""
SYNC_MARK = "# sync: "
NO_SYNC = SyncConf()


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """Which copy this server is, and whom it waits for."""

    copy: str = ""
    sync: SyncConf = NO_SYNC


PLAIN = Naming()


def slot_name(node_id: int) -> str:
    """Of the one slot that a node streams through."""
    return f"{SLOT_PREFIX}{node_id}"


def stream_name(node_id: int, copy: str) -> str:
    """By which a copy's WAL receiver is known on the primary."""
    return f"{slot_name(node_id)}_{copy}" if copy else slot_name(node_id)


def read_stream_name(name: str) -> SyncMember:
    """Reverse of `stream_name`, for a name that matches STREAMS."""
    node, _, copy = name.removeprefix(SLOT_PREFIX).partition("_")
    return SyncMember(node_id=int(node), copy=copy)


def standby_names(conf: SyncConf) -> str:
    """The value of synchronous_standby_names."""
    if conf.blocking:
        return f"ANY 1 ({identifier(NOBODY)})"
    if not conf.target.members:
        return ""
    names = (
        stream_name(m.node_id, m.copy) if m.copy else f"{slot_name(m.node_id)}_unknown"
        for m in conf.target.members
    )
    return f"ANY {conf.target.k} ({', '.join(identifier(name) for name in names)})"


def sync_line(conf: SyncConf) -> str:
    """A comment that says the same for whoever reads the file again."""
    members = [[m.node_id, m.copy] for m in conf.target.members]
    said = {
        "members": members,
        "k": conf.target.k,
        "alone": conf.target.alone,
        "generation": conf.generation,
        "blocking": conf.blocking,
    }
    return SYNC_MARK + json.dumps(said)


def read_sync(text: str) -> SyncConf:
    """What a configuration file of ours says. One that says nothing of it is from before; one that
    cannot be read waits for nobody that could answer."""
    line = next((x for x in text.splitlines() if x.startswith(SYNC_MARK)), None)
    if line is None:
        return SyncConf()
    try:
        said = json.loads(line.removeprefix(SYNC_MARK))
        members = tuple(
            SyncMember(node_id=int(node), copy=str(copy)) for node, copy in said["members"]
        )
        target = SyncSet(members=members, k=int(said["k"]), alone=bool(said["alone"]))
        return SyncConf(
            target=target, generation=int(said["generation"]), blocking=bool(said["blocking"])
        )
    except (ValueError, KeyError, TypeError):
        return SyncConf(target=NO_SET, blocking=True)
