"""The same storms on the real log's code: segments that roll, writes that tear."""

import pytest

from pgraft.storage import wal
from tests.support.raft_group import run_seed


@pytest.mark.parametrize("first", range(1, 21, 5))
def test_seeds_on_the_real_log(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "SEGMENT_BYTES", 16 * 1024)
    for seed in range(first, first + 5):
        run_seed(seed, wal=True)
