"""This member alone becomes a group: what `ramd.recovery` asks of pgraft, on a stopped member."""

from __future__ import annotations

from pathlib import Path


def recover_alone(state_dir: Path, cluster_name: str) -> None:
    raise NotImplementedError
