"""What a node keeps of its founding, and what it refuses to found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ramd.config.load import load_text
from ramd.config.model import Config
from ramd.domain.errors import ConfigError, Refused
from ramd.membership import (
    FILE_NAME,
    differences,
    founding_members,
    own_member,
    refuse_lost_state,
    save_members,
)
from ramd.postgres.conf import MARK
from tests.support.fake_consensus import member


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "data.ramd").mkdir()
    text = f"node_id = 2\nnode_name = here\npostgresql_data_dir = {tmp_path / 'data'}\n"
    return load_text(text, {})


def test_the_founding_list_is_found_again(config: Config) -> None:
    members = (member(1), member(2), member(3))
    save_members(config.state_dir, members)
    assert founding_members(config) == members


def test_addresses_are_those_of_the_founding_and_tags_those_of_the_file(config: Config) -> None:
    save_members(config.state_dir, (member(1), member(2)))
    own = own_member(config)
    assert own == replace(member(2), name="here")


def test_without_a_founding_the_file_counts(config: Config) -> None:
    assert own_member(config) == config.own_member()


def test_a_damaged_list_is_refused_with_its_name(config: Config) -> None:
    (config.state_dir / FILE_NAME).write_text("[{]")
    with pytest.raises(ConfigError, match=FILE_NAME):
        own_member(config)


def test_every_difference_between_file_and_group_is_named() -> None:
    recorded = (member(1), member(2))
    assert differences(recorded, recorded) == []
    moved = replace(member(2), raft_port=9)
    found = differences((member(1), moved, member(3)), (*recorded, member(4)))
    assert len(found) == 3
    assert "raft 9" in found[0]
    assert "node 3 is listed" in found[1]
    assert "node 4 is a member" in found[2]


def test_blank_state_beside_a_members_data_founds_nothing(config: Config) -> None:
    data_dir = config.postgresql_data_dir
    refuse_lost_state(config)
    data_dir.mkdir()
    refuse_lost_state(config)
    (data_dir / "postgresql.conf").write_text("port = 5432\n")
    refuse_lost_state(config)
    (data_dir / "postgresql.conf").write_text(f"port = 5432\ninclude 'x'  {MARK}\n")
    with pytest.raises(Refused, match=str(config.state_dir)):
        refuse_lost_state(config)
