"""What people ask of a simulated cluster.

Must not live here: faults (`ha_faults`). Start reading at `order`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ramd.domain.errors import RamdError
from ramd.domain.model import Settings
from ramd.domain.sync import SyncMode

if TYPE_CHECKING:
    from tests.support.ha_world import World


def order(world: World, command: Any, *, but: int = 0) -> None:
    """Ask the daemon of some member, not this one."""
    state = world.state()
    for host in world.hosts.values():
        mine = not state.formed or state.member(host.node_id) is not None
        if host.daemon is not None and host.node_id != but and mine:
            host.daemon.actor.call(host.daemon.propose, command)
            return


def drawn_settings(world: World, before: Settings) -> Settings:
    """Other settings of synchronous replication and of failover."""
    rng = world.rng
    return replace(
        before,
        auto_failover_enabled=rng.random() < 0.85,
        maximum_lag_on_failover=rng.choice((0, 0, 0, 1_000_000)),
        synchronous_replication=rng.choice((SyncMode.AUTO, SyncMode.ON, SyncMode.ON, SyncMode.OFF)),
        num_sync_standbys=rng.choice((1, 1, 2)),
        enforce_sync_standbys=rng.random() < 0.5,
        sync_replication_timeout_ms=rng.choice((500, 2_000, 10_000)),
    )


def quietly(action: Callable[..., object], *args: object) -> None:
    try:
        action(*args)
    except RamdError:
        return  # a refusal is an answer, too
