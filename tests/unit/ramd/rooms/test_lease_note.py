"""The lease's deadline survives the daemon, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramd.execute import lease_note
from ramd.execute.lease_note import FILE_NAME, LeaseNote


def test_what_was_written_is_found_by_the_next_run(tmp_path: Path) -> None:
    first = LeaseNote.open(tmp_path)
    first.write(7, 123_456_789)
    first.close()
    assert LeaseNote.open(tmp_path).deadline_ns(7) == 123_456_789


def test_another_epoch_is_not_known(tmp_path: Path) -> None:
    note = LeaseNote.open(tmp_path)
    note.write(7, 123)
    assert not note.deadline_ns(8)
    assert not note.deadline_ns(6)


def test_a_blank_note_knows_nothing(tmp_path: Path) -> None:
    assert not LeaseNote.open(tmp_path).deadline_ns(0)
    assert not LeaseNote.open(tmp_path).deadline_ns(1)


def test_a_torn_record_counts_as_nothing(tmp_path: Path) -> None:
    note = LeaseNote.open(tmp_path)
    note.write(7, 1 << 40)
    note.close()
    with (tmp_path / FILE_NAME).open("r+b") as file:
        file.seek(16)
        file.write(b"\xff")
    assert not LeaseNote.open(tmp_path).deadline_ns(7)


def test_a_note_of_another_boot_of_the_host_counts_as_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = LeaseNote.open(tmp_path)
    note.write(7, 123)
    note.close()
    other = tmp_path / "boot_id"
    other.write_text("another boot\n")
    monkeypatch.setattr(lease_note, "BOOT_ID", other)
    assert not LeaseNote.open(tmp_path).deadline_ns(7)
