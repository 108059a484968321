"""A configuration file from values: what a local `cluster create` writes for each node."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from ramd.config.explain import written
from ramd.config.lines import quoted
from ramd.config.model import KEYS, TOPICS, Config, fields
from ramd.config.names import ALIASES
from ramd.config.nodes import NODE_KEY, node_key
from ramd.domain.model import Member


def given_values(config: Config) -> dict[str, object]:
    """What the file and environment of `config` said, key by key, without the node list."""
    return {key: getattr(config, key) for key in KEYS if key in config.given}


def node_list(members: Iterable[Member]) -> dict[str, object]:
    """The keys `node_N_…` that list `members`."""
    values: dict[str, object] = {}
    for member in members:
        values[node_key(member.node_id, "hostname")] = member.hostname
        values[node_key(member.node_id, "port")] = member.postgresql_port
        values[node_key(member.node_id, "raft_port")] = member.raft_port
        values[node_key(member.node_id, "http_port")] = member.http_port
    return values


def render_conf(values: Mapping[str, object], *, heading: str = "") -> str:
    """The text of a ramd.conf that says exactly `values`; None leaves a key out.

    Old names are written as the present ones, whose value wins if both are given. The order is that
    of the reference, the node list last. It may hold secrets: write it with mode
    0600. Raises ValueError for a key that does not exist or a value that no line can hold.
    """
    values = {ALIASES[key]: values[key] for key in values if key in ALIASES} | {
        key: value for key, value in values.items() if key not in ALIASES
    }
    unknown = [key for key in values if key not in KEYS and not NODE_KEY.match(key)]
    if unknown:
        raise ValueError(f"not a key: {', '.join(sorted(unknown))}")
    blocks = [[f"# {line}".rstrip() for line in heading.splitlines()]] if heading else []
    for topic in TOPICS:
        names = [name for name, _, _ in fields(topic)]
        blocks.append([_line(name, values) for name in names if values.get(name) is not None])
    listed = sorted(key for key in values if key not in KEYS and values[key] is not None)
    blocks.append([_line(key, values) for key in listed])
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _line(key: str, values: Mapping[str, object]) -> str:
    return f"{key} = {quoted(_text(values[key]))}".rstrip()


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return shlex.join(str(word) for word in value)
    return written(value)
