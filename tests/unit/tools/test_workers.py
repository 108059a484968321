"""Workers of the simulations end with the process that began them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.wait import wait_for

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("tool", ["tools.sim", "tools.sim_ha"])
def test_workers_end_with_their_parent(tool: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-m", tool, "--minutes", "5", "--jobs", "1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    workers: list[psutil.Process] = []
    try:

        def begun() -> bool:
            workers[:] = psutil.Process(parent.pid).children()
            return any(worker.cpu_times().user > 1.5 for worker in workers)

        wait_for(begun, 60, "a worker that works")
        parent.send_signal(signal.SIGTERM)
        parent.wait(10)
        gone, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive, f"{len(alive)} of {len(gone) + len(alive)} workers go on"
    finally:
        parent.kill()
        parent.wait()
        for worker in workers:
            if worker.is_running():
                worker.kill()
