"""Stopping processes by SIGSTOP, all of a set that may still be growing, and letting them go on.

Lives here: freezing, and thawing exactly what was frozen. Must not live here: which processes
belong together (`local_processes`). Start reading at `Frozen`.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tools.local_processes import ClusterError, alive, send, wait_until

SWEEPS_MAX = 500
SWEEP_S = 0.002
THAW_S = 10.0


class Frozen:
    """What is stopped now; each process is remembered with its start, so that `thaw` never wakes
    another one that has got its number since."""

    def __init__(self) -> None:
        self._starts: dict[int, str] = {}

    def stop(self, pids: Iterable[int]) -> None:
        """Stop these; one that has just ended is passed over."""
        for pid in pids:
            start = _stat(pid, 19)
            if start:
                self._starts[pid] = start
                send(pid, signal.SIGSTOP)

    def stop_all(self, who: str, pids: Callable[[], Iterable[int]]) -> None:
        """Stop what `pids` finds until it finds nothing that runs. Raises ClusterError."""
        for _ in range(SWEEPS_MAX):
            running = {pid for pid in pids() if alive(pid) and not is_stopped(pid)}
            if not running:
                return
            self.stop(running)
            time.sleep(SWEEP_S)  # it stops when it is scheduled next
        raise ClusterError(f"{who} does not stop: {running}")

    def thaw(self) -> None:
        """All of them go on, and do. Raises ClusterError."""
        left = {pid for pid, start in self._starts.items() if _stat(pid, 19) == start}
        self._starts.clear()
        for pid in left:
            send(pid, signal.SIGCONT)
        wait_until("the thawed go on", lambda: not any(map(is_stopped, left)), THAW_S)


def is_stopped(pid: int) -> bool:
    """Stopped by a signal; not so if it has ended."""
    return _stat(pid, 0) == "T"


def _stat(pid: int, field: int) -> str:
    """A field of /proc/PID/stat, counted from the state on (19: when it started); "" if it has
    ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[field]
    return ""
