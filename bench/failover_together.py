"""All stacks at once, each measured by a process of its own: for faults that are mostly waiting.

Lives here: the processes and what they leave. Must not live here: measuring. Start reading at
`measure_together`.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.failover_plan import Plan, arguments_of, key_of
from bench.failover_report import Report
from bench.failover_rounds import Sample

PROGRAM: Final = (sys.executable, "-m", "bench.failover")
LOOK_S: Final = 0.5
END_S: Final = 60.0
"""A process that is told to end removes its cluster first."""


def measure_together(
    plan: Plan, report: Report, program: tuple[str, ...] = PROGRAM, end_s: float = END_S
) -> None:
    """Fill `report` with what the processes found, also if this is cut short."""
    with tempfile.TemporaryDirectory(prefix="ramd-failover-") as folder:
        parts = {stack: Path(folder) / f"{key_of(stack)}.json" for stack in plan.stacks}
        running = {
            stack: subprocess.Popen(
                [*program, *arguments_of(plan, stack, path)],
                start_new_session=True,  # a Ctrl-C reaches them once, from here
            )
            for stack, path in parts.items()
        }
        try:
            while any(process.poll() is None for process in running.values()):
                time.sleep(LOOK_S)
        finally:
            end(list(running.values()), end_s)
            for stack, path in parts.items():
                take(report, stack, path, running[stack].returncode)


def end(processes: list[subprocess.Popen[bytes]], end_s: float) -> None:
    """SIGTERM to whoever still runs, and time to leave nothing behind."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=end_s)


def take(report: Report, stack: str, path: Path, status: int | None) -> None:
    """Add what one process left; that it left nothing is a failure of its stack."""
    try:
        report.add(path.read_text())
    except FileNotFoundError:
        why = f"its process ended with {status} and left nothing"
        report.samples.append(Sample(stack=stack, fault="run", number=0, failed=why))
