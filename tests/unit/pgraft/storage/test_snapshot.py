"""A snapshot is whole or absent; another member's is refused; rot falls back if the log allows."""

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgraft.core.types import (
    Config,
    Grant,
    Index,
    LeaseTerms,
    NodeId,
    PeerRecord,
    Session,
    Snapshot,
    Term,
)
from pgraft.storage.disk import Disk, OsDisk
from pgraft.storage.errors import DiskFull, WalCorrupt, WalFailed, WalForeign
from pgraft.storage.segment import Owner
from pgraft.storage.snapshot import load_newest, save
from tests.support.pgraft_disk import MemoryDisk

OWNER = Owner(cluster_id="c" * 32, node=1, uuid="a" * 32)
OTHER = Owner(cluster_id="c" * 32, node=1, uuid="b" * 32)


def at(index: int, data: bytes = b"state", term: int = 3) -> Snapshot:
    return Snapshot(
        index=Index(index),
        term=Term(term),
        config=Config(
            voters=frozenset({NodeId(1), NodeId(2)}),
            learners=frozenset({NodeId(3)}),
            peers=(PeerRecord(node=NodeId(1), uuid="a" * 32, address="h:1"),),
            removed=("d" * 32,),
        ),
        lease=LeaseTerms(grant=Grant(holder=NodeId(2), epoch=7, ttl_ns=5), ttl_ns=5, longest_ns=9),
        sessions=(Session(session=1, floor=4, done=(6, 7)),),
        data=data,
    )


def file_of(index: int) -> str:
    return f"{index:016x}.snap"


@given(st.binary(max_size=5000))
def test_what_was_saved_is_loaded(data: bytes) -> None:
    disk = MemoryDisk()
    assert save(disk, OWNER, at(5, data)) == 0
    assert load_newest(disk, OWNER) == at(5, data)


def test_no_snapshot_is_none() -> None:
    assert load_newest(MemoryDisk(), OWNER) is None


@pytest.mark.parametrize("real", [False, True])
def test_the_two_newest_are_kept_and_the_log_is_needed_from_the_older(
    tmp_path: Path, real: bool
) -> None:
    disk: Disk = OsDisk(tmp_path) if real else MemoryDisk()
    assert [save(disk, OWNER, at(index)) for index in (10, 200, 3000)] == [0, 10, 200]
    assert disk.names() == [file_of(200), file_of(3000)]
    assert load_newest(disk, OWNER) == at(3000)
    assert save(disk, OWNER, at(3000)) == 200, "again: nothing is lost"


def test_another_members_snapshot_is_refused_by_name() -> None:
    disk = MemoryDisk()
    save(disk, OTHER, at(5))
    with pytest.raises(WalForeign, match=f"{file_of(5)} .*member {'b' * 32}.*member {'a' * 32}"):
        load_newest(disk, OWNER)


def rot(disk: MemoryDisk, index: int, place: int = 200) -> None:
    disk.files[file_of(index)].durable[place] ^= 1


@given(st.data())
def test_no_flipped_bit_is_ever_believed(data: st.DataObject) -> None:
    disk = MemoryDisk()
    save(disk, OWNER, at(5, b"older"))
    save(disk, OWNER, at(9, b"newer"))
    content = disk.files[file_of(9)].durable
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    if 8 <= place < 12:  # a format that is not ours is not rot
        with pytest.raises(WalCorrupt, match="this version reads"):
            load_newest(disk, OWNER, Index(6))
    else:
        assert load_newest(disk, OWNER, Index(6)) == at(5, b"older")


def test_rot_in_the_newest_falls_back_as_far_as_the_log_reaches(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = MemoryDisk()
    save(disk, OWNER, at(5))
    save(disk, OWNER, at(9))
    rot(disk, 9)
    assert load_newest(disk, OWNER, Index(6)) == at(5)
    assert f"{file_of(9)}: checksum does not match" in caplog.text
    with pytest.raises(WalCorrupt, match=f"{file_of(9)}: checksum.*{file_of(5)} ends at 5.*aside"):
        load_newest(disk, OWNER, Index(7))
    rot(disk, 5)
    with pytest.raises(WalCorrupt, match=f"{file_of(9)}.*{file_of(5)}"):
        load_newest(disk, OWNER, Index(6))
    assert load_newest(disk, OWNER, Index(1)) is None, "the log holds everything"


def test_a_snapshot_cut_short_or_renamed_is_rot() -> None:
    disk = MemoryDisk()
    save(disk, OWNER, at(5))
    disk.rename(file_of(5), file_of(6))
    with pytest.raises(WalCorrupt, match="it was renamed"):
        load_newest(disk, OWNER, Index(2))
    del disk.files[file_of(6)].durable[10:]
    with pytest.raises(WalCorrupt, match="shorter than its header"):
        load_newest(disk, OWNER, Index(2))
    disk.replace(file_of(6), b"something else" * 100)
    with pytest.raises(WalCorrupt, match="not a pgraft snapshot"):
        load_newest(disk, OWNER, Index(2))


@pytest.mark.parametrize(
    ("code", "kind", "error"),
    [
        (errno.ENOSPC, "replace", DiskFull),
        (errno.EDQUOT, "replace", DiskFull),
        (errno.EIO, "replace", WalFailed),
        (errno.EIO, "remove", WalFailed),
    ],
)
def test_a_save_that_fails_leaves_the_ones_before(
    code: int, kind: str, error: type[Exception]
) -> None:
    disk = MemoryDisk()
    save(disk, OWNER, at(5))
    save(disk, OWNER, at(9))
    disk.error = code
    disk.fail_at = lambda step: step == kind
    with pytest.raises(error):
        save(disk, OWNER, at(12))
    assert load_newest(disk, OWNER) == at(9 if kind == "replace" else 12)
    assert file_of(5) in disk.names()
