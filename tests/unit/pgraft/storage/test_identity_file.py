"""The identity is made once, survives, and is never taken for another one."""

from dataclasses import replace

import pytest

from pgraft.core.types import NodeId
from pgraft.identity import Founder, FoundingMember, FoundingRecord, Identity, Stage
from pgraft.storage import wal
from pgraft.storage.disk import StorageError
from pgraft.storage.identity_file import NAME, IdentityError, load_or_create, save
from pgraft.storage.segment import Owner
from tests.support.pgraft_disk import MemoryDisk

FOUNDERS = tuple(Founder(node=NodeId(n), address=f"h{n}:7400") for n in (1, 2))


def blank(disk: MemoryDisk) -> Identity:
    return load_or_create(disk, NodeId(1), "prod", FOUNDERS)


def record_of(identity: Identity) -> FoundingRecord:
    members = tuple(
        FoundingMember(node=f.node, address=f.address, uuid=identity.uuid) for f in FOUNDERS
    )
    return FoundingRecord(cluster_id="c" * 32, cluster_name="prod", members=members)


def test_a_blank_identity_is_durable_and_stays_the_same() -> None:
    disk = MemoryDisk()
    first = blank(disk)
    disk.crash([False])
    assert first.stage is Stage.BLANK
    assert blank(disk) == first
    assert blank(MemoryDisk()).uuid != first.uuid


def test_a_started_identity_keeps_its_record_whatever_the_list_says_later() -> None:
    disk = MemoryDisk()
    identity = blank(disk)
    started = replace(identity, stage=Stage.STARTED, record=record_of(identity))
    save(disk, started)
    moved = (Founder(node=NodeId(1), address="elsewhere:1"), FOUNDERS[1])
    loaded = load_or_create(disk, NodeId(1), "prod", moved)
    assert loaded.record == started.record
    assert loaded.list_text == "1@h1:7400 2@h2:7400"
    assert loaded.cluster_id == "c" * 32


def test_another_node_or_cluster_is_refused_naming_both() -> None:
    disk = MemoryDisk()
    identity = blank(disk)
    with pytest.raises(IdentityError, match=r"node 1, the configuration says node 2"):
        load_or_create(disk, NodeId(2), "prod", FOUNDERS)
    load_or_create(disk, NodeId(1), "still free to choose", FOUNDERS)
    save(disk, replace(identity, stage=Stage.RECORDED, record=record_of(identity)))
    with pytest.raises(IdentityError, match=r"'prod'.*'test'"):
        load_or_create(disk, NodeId(1), "test", FOUNDERS)


def test_no_flipped_bit_makes_another_identity() -> None:
    disk = MemoryDisk()
    identity = blank(disk)
    save(disk, replace(identity, stage=Stage.STARTED, record=record_of(identity)))
    good = blank(disk)
    content = disk.files[NAME].durable
    for place in range(len(content)):
        content[place] ^= 0x01
        refusal = ""
        try:
            assert blank(disk) == good, f"byte {place}"
        except IdentityError as error:
            refusal = str(error)
        assert not refusal or NAME in refusal
        content[place] ^= 0x01


def test_a_log_without_an_identity_never_gets_a_new_one() -> None:
    disk = MemoryDisk()
    wal.create(disk, Owner(cluster_id="c" * 32, node=1, uuid="a" * 32))
    with pytest.raises(IdentityError, match="log beside it"):
        blank(disk)


def test_a_disk_that_refuses_is_an_error_and_not_a_crash() -> None:
    disk = MemoryDisk()
    disk.fail_at = lambda kind: True
    with pytest.raises(StorageError, match="cannot be written"):
        blank(disk)


def test_an_identity_is_blank_exactly_without_a_record() -> None:
    identity = blank(MemoryDisk())
    with pytest.raises(ValueError, match="stage"):
        replace(identity, stage=Stage.STARTED)
