"""The processes of a cluster on this host: starting daemons, and the faults done to them.

Only processes that belong to the cluster's own directory are ever ended: found by pid file, by
working directory, or by its files on their command line. Start reading at `Processes`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.local_places import Places

POLL_S = 0.05
END_ATTEMPTS_MAX = 200
QUIT_S = 3.0


class ClusterError(Exception):
    """The cluster did not do what was asked within the deadline; the message says what was seen."""


def wait_until(what: str, condition: Callable[[], bool], deadline_s: float) -> float:
    """Seconds until `condition` held. Raises ClusterError naming `what` after `deadline_s`."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > deadline_s:
            raise ClusterError(f"not within {deadline_s:g} s: {what}")
        time.sleep(POLL_S)
    return time.monotonic() - begun


class Processes:
    """Daemons and servers by node id. `prefix` goes before a daemon's command line."""

    def __init__(self, places: Places, prefix: tuple[str, ...] = ()) -> None:
        self._places = places
        self._prefix = prefix
        self._daemons: dict[int, subprocess.Popen[bytes]] = {}

    def spawn(self, node: int) -> None:
        """Start a node's daemon with the same command line as ever."""
        self._reap(node, timeout_s=5)
        command = [sys.executable, "-m", "ramd", "--config", str(self._places.conf(node))]
        with self._places.output(node).open("ab") as sink:
            self._daemons[node] = subprocess.Popen(
                [*self._prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    def exit_status(self, node: int) -> int | None:
        """Of a daemon that `spawn` started and that has ended; None while it lives."""
        daemon = self._daemons.get(node)
        return None if daemon is None else daemon.poll()

    def daemon_lives(self, node: int, *, but: int | None = None) -> bool:
        """Also one that was just started and has not written its pid file yet, or is just ending.
        `but`: the one with this process id does not count."""
        started = self._daemons.get(node)
        # One that was killed cannot be waited for until the last of its threads has gone.
        if (
            started is not None
            and started.pid != but
            and started.poll() is None
            and alive(started.pid)
        ):
            return True
        return self.daemon_pid(node) not in (None, but)

    def daemon_pid(self, node: int) -> int | None:
        return self._own(pid_of(self._places.state_dir(node) / "ramd.pid"))

    def postmaster_pid(self, node: int) -> int | None:
        return self._own(pid_of(self._places.data_dir(node) / "postmaster.pid"))

    def server_pids(self, node: int) -> list[int]:
        """Every process whose working directory is the node's data directory."""
        return [
            pid for pid, cwd in working_directories() if cwd == str(self._places.data_dir(node))
        ]

    def kill_server(self, node: int) -> None:
        """SIGKILL of the postmaster alone."""
        pid = self.postmaster_pid(node)
        if pid is None:
            raise ClusterError(f"node {node} has no postmaster")
        os.kill(pid, signal.SIGKILL)

    def kill_daemon(self, node: int) -> None:
        """SIGKILL of the daemon alone."""
        pid = self.daemon_pid(node)
        if pid is None:
            raise ClusterError(f"node {node} has no daemon")
        send(pid, signal.SIGKILL)
        wait_until(f"node {node}'s daemon is dead", lambda: not self._lives(node, pid), 10)

    def node_pids(self, node: int) -> set[int]:
        """Daemon, its helpers, postmaster and backends."""
        daemon = [pid for pid in (self.daemon_pid(node),) if pid]
        places = (str(self._places.data_dir(node)), str(self._places.state_dir(node)))
        helpers = [pid for pid, _ in working_directories() if names_any(pid, places)]
        return {*daemon, *self.server_pids(node), *helpers}

    def kill_node(self, node: int) -> None:
        """SIGKILL of everything of a node at once: the host is gone when this returns."""
        pids = self.node_pids(node)
        for pid in pids:
            send(pid, signal.SIGKILL)
        wait_until(f"node {node} is dead", lambda: not any(map(alive, pids)), 10)
        self._reap(node)

    def stop_daemon(self, node: int, deadline_s: float = 30) -> None:
        """SIGTERM of the daemon; its server stays. Returns when it has ended."""
        pid = self.daemon_pid(node)
        if pid is None:
            return
        send(pid, signal.SIGTERM)
        wait_until(f"node {node}'s daemon ended", lambda: not self._lives(node, pid), deadline_s)

    def end_all(self) -> None:
        """End every process of this cluster: servers so that they give their shared memory back,
        whatever is left by SIGKILL."""
        for pid in self._others():
            if is_daemon(pid):
                send(pid, signal.SIGKILL)
        servers = {pid_of(path) for path in self._places.root.glob("*/postmaster.pid")}
        for server in servers.intersection(self._others()):
            if server is not None:
                send(server, signal.SIGQUIT)
        with contextlib.suppress(ClusterError):
            wait_until("the servers have ended", lambda: not self._others(), QUIT_S)
        for _ in range(END_ATTEMPTS_MAX):
            pids = self._others()
            if not pids:
                break
            for pid in pids:
                send(pid, signal.SIGKILL)
            time.sleep(POLL_S)
        for node in self._daemons:
            self._reap(node)

    def _own(self, pid: int | None) -> int | None:
        """None if it is not of this cluster: the file was left, and the number is another's."""
        return pid if pid is not None and belongs_to(pid, self._places.root) else None

    def _others(self) -> list[int]:
        return [pid for pid in belonging_to(self._places.root) if pid != os.getpid()]

    def _lives(self, node: int, pid: int) -> bool:
        self._reap(node)
        return alive(pid)

    def _reap(self, node: int, timeout_s: float = 0.01) -> None:
        daemon = self._daemons.get(node)
        if daemon is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=timeout_s)


def send(pid: int, number: signal.Signals) -> None:
    """A signal to a process that may just have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def is_daemon(pid: int) -> bool:
    """Python runs it, so it is a daemon or a helper of one, not a server."""
    try:
        return b"python" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0", 1)[0]
    except OSError:
        return False


def pid_of(path: Path) -> int | None:
    """The living process whose number a file begins with."""
    try:
        pid = int(path.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None
    return pid if alive(pid) else None


def alive(pid: int) -> bool:
    """Exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def belonging_to(root: Path) -> Iterator[int]:
    """Every process that works below `root` or has a file below it on its command line."""
    for pid, _ in working_directories():
        if belongs_to(pid, root):
            yield pid


def belongs_to(pid: int, root: Path) -> bool:
    """It works below `root` or has a file below it on its command line."""
    cwd = ""
    with contextlib.suppress(OSError):
        cwd = str(Path(f"/proc/{pid}/cwd").readlink()).removesuffix(" (deleted)")
    return cwd.startswith(f"{root}/") or names_any(pid, (f"{root}/",))


def working_directories() -> Iterator[tuple[int, str]]:
    """(pid, working directory) of every living process."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                cwd = str(Path(entry.path, "cwd").readlink()).removesuffix(" (deleted)")
                if alive(int(entry.name)):
                    yield int(entry.name), cwd


def names_any(pid: int, places: tuple[str, ...]) -> bool:
    """One of the places stands on the process's command line, also as `--option=place`."""
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return any(place.encode() in argv for place in places)
