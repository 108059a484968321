"""A timing profile reaches whatever keeps time: Raft, lease, guard, patience, other nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramd.api.health import CHECKS
from ramd.assembly import Surroundings, group_options
from ramd.config.load import load, load_text
from ramd.config.model import Config
from ramd.domain.service import CreateRequest
from ramd.execute.guard import margin_of
from ramd.formation import Made, plan_nodes

MS = 1_000_000
PROFILES = {
    # heartbeat, election, lease, margin of the guard, patience between daemons
    "fast": (30, 150, 1_000, 250, 2_000),
    "default": (100, 600, 3_000, 400, 2_000),
    "wan": (500, 3_000, 15_000, 400, 3_000),
}


def configured(tmp_path: Path, profile: str) -> Config:
    text = f"postgresql_data_dir = {tmp_path}/node1\ntiming_profile = {profile}\n"
    return load_text(text + "hostname = 127.0.0.1\n", {})


@pytest.mark.parametrize("profile", PROFILES)
def test_the_group_and_the_guard_keep_the_times_of_the_profile(
    tmp_path: Path, profile: str
) -> None:
    config = configured(tmp_path, profile)
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef" * 2)
    secret.chmod(0o600)
    around = Surroundings(
        config=config,
        members=(config.own_member(),),
        secret_file=secret,
        version="1",
        clock=lambda: 0,
        unix_ms=lambda: 0,
    )
    heartbeat, election, ttl, margin, patience = PROFILES[profile]
    core = group_options(around, boot=1, released_epoch=0).core_timing()
    assert core.heartbeat_ns == heartbeat * MS
    assert core.election_ns == election * MS
    assert core.lease_ttl_ns == ttl * MS
    assert margin_of(config.primary_lease_ttl_ms) == margin
    assert config.timing().patience_ns == patience * MS
    # The guard shuts after the next renewal is due, so a renewal in time is never cut off.
    assert ttl // 10 < ttl - margin


@pytest.mark.parametrize("profile", PROFILES)
def test_a_local_create_gives_every_node_the_same_times(tmp_path: Path, profile: str) -> None:
    config = configured(tmp_path, profile)
    plans = plan_nodes(config, CreateRequest(num_nodes=3))
    Made().write(plans, config)
    for plan in plans[1:]:
        assert load(plan.conf_file, {}).timing() == config.timing()


def test_liveness_leaves_the_fastest_lease_two_beats() -> None:
    """The control loop beats twice a second; a holder is alive if it turned within a lease."""
    assert "/liveness" in CHECKS
    assert min(ttl for _, _, ttl, _, _ in PROFILES.values()) >= 2 * 500
