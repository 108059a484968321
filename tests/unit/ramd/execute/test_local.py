"""What a node remembers over a restart: durable, only towards safety, loud when damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ramd.domain.errors import ConfigError, Refused
from ramd.domain.lsn import Lsn
from ramd.domain.observation import Attempt
from ramd.domain.server import Promotion
from ramd.execute.local import FILE_NAME, LocalRecord, LocalStore, OwnFork, SealOrder, Unproven
from tests.support.virtual_time import virtual

FIRST = SealOrder(epoch=4, attempt=Attempt(term=7, number=1))
SECOND = SealOrder(epoch=4, attempt=Attempt(term=7, number=2))
FORK = OwnFork(epoch=5, promotion=Promotion(timeline=5, parent_timeline=4, fork_lsn=Lsn(0x3000148)))


def test_missing_file_is_a_blank_record(tmp_path: Path) -> None:
    assert LocalStore.load(tmp_path).record == LocalRecord()


@virtual
async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    store = LocalStore.load(tmp_path)
    async with store.opening(5):
        pass
    await store.latch(5)
    await store.seal(FIRST)
    await store.note_fork(FORK)
    await store.mark(Unproven.REWINDING, made_unix_ms=1234)
    again = LocalStore.load(tmp_path)
    assert again.record == store.record
    assert again.record == LocalRecord(
        released_epoch=5,
        opened_epoch=5,
        seal=FIRST,
        fork=FORK,
        unproven=Unproven.REWINDING,
        copy_made_unix_ms=1234,
        copy=store.record.copy,
    )
    assert again.released_epoch == 5
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]


@virtual
async def test_file_is_synced_before_it_takes_its_name_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace_file = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        steps.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def note_replace(path: Path, target: Path) -> Path:
        steps.append("rename")
        return replace_file(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    await LocalStore.load(tmp_path).latch(1)
    assert steps == ["sync local.tmp", "rename", f"sync {tmp_path.name}"]


@virtual
async def test_latch_never_falls_and_holds_before_it_is_durable(tmp_path: Path) -> None:
    store = LocalStore.load(tmp_path)
    store.latch_now(6)
    assert store.released_epoch == 6
    assert store.record.released_epoch == 0
    await store.latch(3)
    assert store.released_epoch == 6
    await store.latch(6)
    await store.latch(2)
    assert LocalStore.load(tmp_path).released_epoch == 6


@virtual
async def test_opening_is_durable_inside_and_shown_only_afterwards(tmp_path: Path) -> None:
    store = LocalStore.load(tmp_path)
    async with store.opening(2):
        assert LocalStore.load(tmp_path).record.opened_epoch == 2
        assert store.record.opened_epoch == 0
    assert store.record.opened_epoch == 2
    with pytest.raises(RuntimeError):
        async with store.opening(3):
            raise RuntimeError("the start failed")
    assert store.record.opened_epoch == 3


@virtual
async def test_no_epoch_is_opened_twice_nor_after_its_release(tmp_path: Path) -> None:
    store = LocalStore.load(tmp_path)
    async with store.opening(2):
        pass
    with pytest.raises(Refused, match="not newer"):
        async with store.opening(2):
            pytest.fail("opened twice")
    store.latch_now(3)
    with pytest.raises(Refused, match="never resumes"):
        async with store.opening(3):
            pytest.fail("opened after its release")


@virtual
async def test_opening_ends_a_seal(tmp_path: Path) -> None:
    store = LocalStore.load(tmp_path)
    await store.seal(FIRST)
    async with store.opening(5):
        pass
    assert store.record.seal is None


@virtual
async def test_lower_attempt_neither_seals_nor_unseals(tmp_path: Path) -> None:
    store = LocalStore.load(tmp_path)
    await store.seal(SECOND)
    with pytest.raises(Refused, match=r"7\.1 is older than 7\.2"):
        await store.seal(FIRST)
    for attempt in (None, FIRST.attempt):
        with pytest.raises(Refused, match="only a newer one unseals"):
            await store.unseal(attempt)
    assert LocalStore.load(tmp_path).record.seal == SECOND
    await store.unseal(SECOND.attempt)
    assert LocalStore.load(tmp_path).record.seal is None


@virtual
async def test_a_later_term_seals_over_any_number(tmp_path: Path) -> None:
    store = LocalStore.load(tmp_path)
    await store.seal(SECOND)
    later = SealOrder(epoch=4, attempt=Attempt(term=8, number=1))
    await store.seal(later)
    assert store.record.seal == later


@virtual
async def test_failed_write_changes_nothing_but_the_latch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore.load(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        await store.latch(4)
    assert store.record.released_epoch == 0
    assert store.released_epoch == 4
    monkeypatch.undo()
    await store.latch(4)
    assert LocalStore.load(tmp_path).released_epoch == 4


@virtual
async def test_forget_leaves_a_blank_node(tmp_path: Path) -> None:
    store = LocalStore.load(tmp_path)
    await store.latch(9)
    await store.forget()
    assert store.released_epoch == 0
    assert LocalStore.load(tmp_path).record == LocalRecord()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b'{"format": "\x80"}', "invalid start byte"),
        (b"[]", "list"),
        (b"{}", "format"),
        (b'{"format": 99}', "format 99"),
    ],
)
def test_damaged_file_is_refused_by_name(tmp_path: Path, damage: bytes, named: str) -> None:
    (tmp_path / FILE_NAME).write_bytes(damage)
    with pytest.raises(ConfigError) as refusal:
        LocalStore.load(tmp_path)
    assert str(tmp_path / FILE_NAME) in refusal.value.message
    assert named in refusal.value.message
    assert refusal.value.hint


@virtual
async def test_wrong_types_are_damage(tmp_path: Path) -> None:
    store = LocalStore.load(tmp_path)
    await store.seal(FIRST)
    good = json.loads((tmp_path / FILE_NAME).read_bytes())
    wrong: list[tuple[str, object]] = [
        ("released_epoch", "3"),
        ("opened_epoch", -1),
        ("opened_epoch", True),
        ("seal", {"epoch": 1}),
        ("unproven", "perhaps"),
    ]
    for key, value in wrong:
        (tmp_path / FILE_NAME).write_text(json.dumps({**good, key: value}))
        with pytest.raises(ConfigError):
            LocalStore.load(tmp_path)
