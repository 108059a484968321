"""What a node keeps of its own membership outside the group's log, and how a file is judged by it.

The log knows every member, but it is read only after the server's own settings are needed, so the
founding list is kept beside it. Once there is Raft state, the node list of the configuration
file is only compared with what the group knows. Start reading at `own_member`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from ramd.config.model import Config
from ramd.domain.errors import ConfigError, Refused
from ramd.domain.model import Member
from ramd.link import add_again
from ramd.postgres.conf import MARK
from ramd.postgres.files import write_file

FILE_NAME = "members.json"


def save_members(state_dir: Path, members: tuple[Member, ...]) -> None:
    """Keep the founding list, this node's own entry included; durable when it returns."""
    text = json.dumps([asdict(member) for member in members], indent=1) + "\n"
    write_file(state_dir / FILE_NAME, text, None)


def founding_members(config: Config) -> tuple[Member, ...]:
    """The list this node was founded with; empty if nothing was kept. Raises ConfigError."""
    path = config.state_dir / FILE_NAME
    try:
        return tuple(Member(**entry) for entry in json.loads(path.read_text()))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path} is damaged: {error}",
            hint="it says under which addresses this group was founded: restore it",
        ) from error


def own_member(config: Config) -> Member:
    """This node as it was founded, with name and tags of its present file; else as the file says.

    Raises ConfigError.
    """
    given = config.own_member()
    for kept in founding_members(config):
        if kept.node_id == config.node_id:
            return replace(
                kept, name=given.name, priority=given.priority, nofailover=given.nofailover
            )
    return given


def differences(listed: Iterable[Member], recorded: Iterable[Member]) -> list[str]:
    """Where the addresses in a file's node list are not those that the group knows."""
    known = {member.node_id: member for member in recorded}
    found = []
    for member in listed:
        other = known.pop(member.node_id, None)
        if other is None:
            found.append(f"node {member.node_id} is listed and is no member of the group")
        elif _address(member) != _address(other):
            found.append(
                f"node {member.node_id} is listed at {_text(member)}, the group knows it at"
                f" {_text(other)}"
            )
    found += [f"node {node} is a member and is not listed" for node in sorted(known)]
    return found


def refuse_lost_state(config: Config) -> None:
    """A blank state directory beside a data directory that was a member's never founds a group.

    Raises Refused: the votes and acknowledgements that belonged to this data are gone.
    """
    if holds_members_data(config):
        conf = config.postgresql_data_dir / "postgresql.conf"
        raise Refused(
            f"{config.postgresql_data_dir} was a RAMD node's and its state in"
            f" {config.state_dir} is gone",
            code="conflict",
            hint=f"restore {config.state_dir}; or {add_again(config.node_id)}; or, to begin a new"
            f" cluster with this data, remove the line with {MARK!r} from {conf}",
        )


def holds_members_data(config: Config) -> bool:
    """The data directory carries the mark of a RAMD node."""
    conf = config.postgresql_data_dir / "postgresql.conf"
    try:
        return MARK in conf.read_text(errors="replace")
    except OSError:
        return False


def _address(member: Member) -> tuple[object, ...]:
    return (member.hostname, member.postgresql_port, member.raft_port, member.http_port)


def _text(member: Member) -> str:
    return (
        f"{member.hostname} (PostgreSQL {member.postgresql_port}, raft {member.raft_port},"
        f" http {member.http_port})"
    )
