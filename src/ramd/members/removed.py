"""What a removed node keeps of its removal: one file, and the words for people.

Start reading at `save`.
"""

from __future__ import annotations

import json
from pathlib import Path

from ramd.postgres.files import write_file

FILE_NAME = "removed.json"
"""In the state directory of a node that was removed: it takes no part until it is added again."""


def save(state_dir: Path, *, cluster_name: str, how: str, at: str) -> None:
    """Note it durably; from here on the daemon stays out of the cluster at each start."""
    text = json.dumps({"cluster_name": cluster_name, "how": how, "at": at}) + "\n"
    write_file(state_dir / FILE_NAME, text, None)


def is_removed(state_dir: Path) -> bool:
    """This state directory is a removed node's."""
    return (state_dir / FILE_NAME).exists()


def cluster_of(state_dir: Path) -> str:
    """From which cluster it was removed, '' if that cannot be read."""
    try:
        return str(json.loads((state_dir / FILE_NAME).read_text())["cluster_name"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def advice(node_id: int, state_dir: Path, cluster_name: str) -> str:
    """How it is, and what brings the node back, in one line."""
    return (
        f"node {node_id} was removed from cluster {cluster_name}: its server is stopped and its"
        f" data are untouched; to bring it back, move {state_dir} aside, run `ramctrl nodes add"
        f" --node-id {node_id}` on a member, and start this daemon with join and join_token_file"
    )
