"""The same storms on the real log's code: segments that roll, writes that tear, rot, full disks."""

import pytest

from tests.support.raft_runner import Task, run_task


@pytest.mark.parametrize("first", range(101, 121, 5))
def test_seeds_on_the_real_log(first: int) -> None:
    for seed in range(first, first + 5):
        result = run_task(Task(seed=seed, wal=True, chaos=20))
        assert not result.failure, result.failure
