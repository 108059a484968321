"""A watch over a server whose daemon ends: it stops the server when the lease is over.

A daemon that is stopped leaves its server running so that the next one can adopt it. Until the
server itself checks the lease, somebody must stop it in time if no daemon comes back: this small
process of little weight. Start reading at `watch`; `leave_watch` is
what the daemon calls. A daemon that is killed outright cannot leave it behind: see docs.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ramd.execute.lease_note import LeaseNote
from ramd.execute.local import LocalStore
from ramd.postgres.account import owner_account
from ramd.postgres.orphans import kill_server_of, server_processes, signal_exactly

LOCK_FILE = "raft/lock"
LOOK_S = 0.05
KILL_AFTER_S = 0.2
GIVE_UP_S = 30.0


def leave_watch(*, state_dir: Path, data_dir: Path, margin_ms: int) -> None:
    """Start the watch as a process of its own; it holds no lock and outlives this one."""
    command = [sys.executable, "-m", "ramd.execute.parting", str(state_dir), str(data_dir)]
    subprocess.Popen(
        [*command, str(margin_ms)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def watch(state_dir: Path, data_dir: Path, margin_ns: int) -> str:
    """Wait for the end of the noted lease, then stop the server unless a daemon took it over.

    A daemon that only holds the directory has not: it may be about to fail, at a port or a damaged
    log, and nobody would mind the server. Returns what happened: `taken over` or `stopped`.
    """
    found = LocalStore.load(state_dir).record
    note = LeaseNote.open(state_dir)
    deadline_ns = note.deadline_ns(found.opened_epoch)

    def taken_over() -> bool:
        if not _held(state_dir / LOCK_FILE):
            return False
        now = LocalStore.load(state_dir).record
        replica = (data_dir / "standby.signal").exists()
        epochs = (now.opened_epoch, now.released_epoch)
        renewed = note.deadline_ns(found.opened_epoch) != deadline_ns
        return renewed or replica or epochs != (found.opened_epoch, found.released_epoch)

    while not taken_over():
        if time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= deadline_ns - margin_ns:
            stop_now(data_dir)
            return "stopped"
        time.sleep(LOOK_S)
    return "taken over"


def stop_now(data_dir: Path) -> None:
    """Immediate stop of the server on `data_dir`, then SIGKILL of whatever is left of it."""
    account = owner_account(data_dir)
    begun_s = time.monotonic()
    postmaster = _postmaster(data_dir)
    for process in server_processes(data_dir, account):
        if process.pid == postmaster:
            signal_exactly(process, account, signal.SIGQUIT)
    while any(server_processes(data_dir, account)):
        if time.monotonic() - begun_s > KILL_AFTER_S:
            kill_server_of(data_dir, timeout_s=GIVE_UP_S - KILL_AFTER_S)
            return
        time.sleep(LOOK_S / 5)


def _held(lock: Path) -> bool:
    """A daemon holds the state directory."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _postmaster(data_dir: Path) -> int | None:
    """The process id in postmaster.pid; who it really is, is told by its working directory."""
    try:
        return int((data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def main(arguments: list[str]) -> int:
    """`python -m ramd.execute.parting STATE_DIR DATA_DIR MARGIN_MS`."""
    state_dir, data_dir, margin_ms = arguments
    watch(Path(state_dir), Path(data_dir), int(margin_ms) * 1_000_000)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
