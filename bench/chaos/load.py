"""pgbench beside the recording clients: load, and sums that only whole transactions keep equal.

It is started again every few seconds with all hosts in its connection string, so that it finds the
primary by itself, and killed if it hangs on a host that is frozen. Start reading at `Load`.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from pathlib import Path

from ramd.postgres.account import Account

CLIENTS = 4
RUN_S = 10
HANGS_S = RUN_S + 5
FILL_S = 120
AGAIN_S = 0.3
DONE = re.compile(rb"transactions actually processed: (\d+)")
SCALE = 2
TABLES = ("pgbench_accounts", "pgbench_tellers", "pgbench_branches", "pgbench_history")
SUMS = (
    "SELECT (SELECT sum(abalance) FROM pgbench_accounts)::bigint,"
    " (SELECT sum(tbalance) FROM pgbench_tellers)::bigint,"
    " (SELECT sum(bbalance) FROM pgbench_branches)::bigint,"
    " (SELECT coalesce(sum(delta), 0) FROM pgbench_history)::bigint"
)


class Load:
    """A thread that runs pgbench again and again until `stop`."""

    def __init__(self, bin_dir: Path, account: Account, ports: list[int], rate: int) -> None:
        """`rate`: transactions per second in all, so that the faults' own work finds some CPU."""
        self._command = [str(bin_dir / "pgbench"), "-h", ",".join(["127.0.0.1"] * len(ports))]
        self._command += ["-p", ",".join(map(str, ports)), "-U", "postgres", "-n"]
        self._identity = (account.uid, account.gid) if account.drops else (None, None)
        self._rate = rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._main, name="pgbench", daemon=True)
        self.transactions = 0
        """At least so many: those of a pgbench that was killed are not counted."""

    def fill(self) -> None:
        """Make its tables. Raises subprocess.SubprocessError."""
        process = self._start(["-i", "-I", "dtGp", "-s", str(SCALE)])
        _, errors = process.communicate(timeout=FILL_S)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, "pgbench -i", stderr=errors)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends it, whatever it waits for; may be called more than once."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        user, group = self._identity
        return subprocess.Popen(
            [*self._command, *arguments, "postgres"],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                "PATH": os.defpath,
                "HOME": "/",
                "PGTARGETSESSIONATTRS": "read-write",
                "PGCONNECT_TIMEOUT": "2",
            },
            user=user,
            group=group,
            start_new_session=True,
        )

    def _main(self) -> None:
        arguments = ["-c", str(CLIENTS), "-T", str(RUN_S), "-R", str(self._rate)]
        while not self._stop.is_set():
            process = self._start(arguments)
            said = self._await(process)
            if found := DONE.search(said):
                self.transactions += int(found[1])
            self._stop.wait(AGAIN_S)

    def _await(self, process: subprocess.Popen[bytes]) -> bytes:
        """What it printed when it ended, was asked to, or hung too long."""
        waited_s = 0.0
        while waited_s < HANGS_S and not self._stop.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=AGAIN_S)[0]
            waited_s += AGAIN_S
        process.kill()
        return process.communicate()[0]
