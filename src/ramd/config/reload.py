"""What changes when a running daemon is given another configuration."""

from __future__ import annotations

from dataclasses import dataclass

from ramd.config.model import Config, all_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Names of the keys whose effective values differ, by what has to happen."""

    applied: tuple[str, ...] = ()
    """Take effect now."""
    needs_restart: tuple[str, ...] = ()
    cluster_wide: tuple[str, ...] = ()
    """Settings of the group once it is formed: the file no longer decides."""

    def __bool__(self) -> bool:
        return bool(self.applied or self.needs_restart or self.cluster_wide)


def diff(old: Config, new: Config) -> Changes:
    """Compare two configurations of the same daemon."""
    applied: list[str] = []
    needs_restart: list[str] = []
    cluster_wide: list[str] = []
    for name, _, key in all_fields():
        if getattr(old, name) == getattr(new, name):
            continue
        if key.cluster_wide:
            cluster_wide.append(name)
        elif key.reload:
            applied.append(name)
        else:
            needs_restart.append(name)
    if old.nodes != new.nodes:
        cluster_wide.append("nodes")
    return Changes(
        applied=tuple(applied),
        needs_restart=tuple(needs_restart),
        cluster_wide=tuple(cluster_wide),
    )


def merged(old: Config, new: Config) -> Config:
    """`old` with those values of `new` that can be applied without a restart."""
    update = {name: getattr(new, name) for name in diff(old, new).applied}
    return old.model_copy(update=update)
