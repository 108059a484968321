"""Throw-away PostgreSQL servers: a short directory the server's user can enter, a data directory
copied from a template, and an end for every process that works below it.

pytest's tmp_path will not do: it is closed to other users and too long for a socket. Start reading
at `PostgresRoot`; `reap_processes` is what makes a crashed test leave nothing behind.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from ramd.postgres.instance import Instance
from ramd.postgres.make import initdb
from ramd.postgres.options import ServerOptions
from ramd.postgres.site import Site, open_site
from tests.support.ports import free_port_block

DEBIAN_BIN = Path("/usr/lib/postgresql/15/bin")
SMALL: Mapping[str, str] = {
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_connections": "40",
    "wal_keep_size": "64MB",
    "autovacuum": "off",
}
REAP_S = 10.0
QUIT_S = 2.0


class PostgresRoot:
    """One directory for all servers of a test process; `close` ends and removes them all."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="ramd-pg-"))
        self.path.chmod(0o711)
        self._templates: dict[Path | None, Path] = {}
        self._clusters = 0

    def cluster(self, size: int, *, bin_dir: Path | None = None) -> ServerCluster:
        """Options and directories for `size` nodes with free ports; nothing is made yet."""
        self._clusters += 1
        return ServerCluster(self, self.path / f"c{self._clusters}", size, bin_dir)

    def template(self, bin_dir: Path | None) -> Path:
        """A fresh data directory to copy, made once for each directory of programs. Not for a
        running event loop's thread."""
        if bin_dir not in self._templates:
            name = f"template{len(self._templates)}"
            site = open_site(plain_options(self.path / name, 1, 1), bin_dir=bin_dir)
            asyncio.run(initdb(site))
            self._templates[bin_dir] = site.data_dir
        return self._templates[bin_dir]

    def close(self) -> None:
        """End every process that works below this directory, then remove it."""
        reap_processes(self.path)
        shutil.rmtree(self.path)


class ServerCluster:
    """A few servers side by side, node ids 1 to `size`."""

    def __init__(self, root: PostgresRoot, folder: Path, size: int, bin_dir: Path | None) -> None:
        self.folder = folder
        self.bin_dir = bin_dir
        self._root = root
        self._ports = free_port_block(size)

    def remove(self) -> None:
        """End its servers and forget their directories."""
        reap_processes(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def site(self, node_id: int, **changes: Any) -> Site:
        """One node's site; `changes` are fields of ServerOptions."""
        options = plain_options(self.folder / f"n{node_id}", node_id, self._ports[node_id - 1])
        return open_site(replace(options, **changes), bin_dir=self.bin_dir)

    def instance(
        self, node_id: int, *, from_template: bool = False, copy: str = "", **changes: Any
    ) -> Instance:
        """One node's server, its data directory absent or a copy of the template."""
        site = self.site(node_id, **changes)
        if from_template:
            copy_data(self._root.template(self.bin_dir), site.data_dir)
        return Instance(site, copy=lambda: copy)


def plain_options(folder: Path, node_id: int, port: int) -> ServerOptions:
    """Everything of one node below `folder`. Small WAL files: less to copy and to zero."""
    return ServerOptions(
        node_id=node_id,
        data_dir=folder / "data",
        state_dir=folder / "state",
        log_dir=folder / "log",
        port=port,
        initdb_options=("--no-sync", "--wal-segsize=1"),
        extra=SMALL,
    )


def copy_data(template: Path, target: Path) -> None:
    """A copy with owners and modes; its parents are ours."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--reflink=auto", template, target], check=True, timeout=60)


def connect(site: Site, **fields: Any) -> psycopg.Connection[tuple[Any, ...]]:
    """A client by the server's private socket, committing each statement."""
    info: dict[str, Any] = {
        "host": str(site.socket_dir),
        "port": site.options.port,
        "user": site.options.superuser,
        "dbname": site.options.database,
        "connect_timeout": 10,
    }
    return psycopg.connect(**(info | fields), autocommit=True)


def ask(site: Site, sql: str) -> Any:
    """First column of the first row of one statement, None if there is no row."""
    with connect(site) as connection:
        cursor = connection.execute(sql.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def postmaster_pid(server: Instance) -> int:
    """Process number of a running server."""
    return int((server.data.path / "postmaster.pid").read_text(encoding="ascii").split()[0])


def processes_below(folder: Path) -> list[int]:
    """Every living process whose working directory lies in `folder`."""
    top = os.path.realpath(folder)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                where = str((entry / "cwd").readlink()).removesuffix(" (deleted)")
            except OSError:
                continue
            if where == top or where.startswith(f"{top}/"):
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


@contextmanager
def frozen(folder: Path) -> Iterator[list[int]]:
    """Every process below `folder` is stopped (SIGSTOP) inside."""
    stopped = []
    for pid in processes_below(folder):
        with suppress(ProcessLookupError):  # a backend that was just ending
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
    try:
        yield stopped
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def reap_processes(folder: Path) -> None:
    """SIGKILL, also what is stopped, until none is left; then forget the shared memory that dead
    servers left behind."""
    segments = shared_memory(folder)
    deadline = time.monotonic() + REAP_S
    quit_servers(folder)
    while left := processes_below(folder):
        assert time.monotonic() < deadline, f"processes in {folder} do not end: {left}"
        for pid in left:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            if pid in processes_below(folder):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
        time.sleep(0.02)
    for segment in segments:
        subprocess.run(["ipcrm", "-m", segment], check=False, capture_output=True, timeout=10)


def quit_servers(folder: Path) -> None:
    """An immediate stop lets a server give back its shared memory, a megabyte each; what SIGKILL
    leaves behind stays until the host restarts. Returns after QUIT_S at the latest."""
    below = processes_below(folder)
    for path in folder.glob("**/postmaster.pid"):
        with suppress(ValueError, IndexError, OSError):
            pid = int(path.read_text(encoding="ascii").split()[0])
            if pid in below:
                os.kill(pid, signal.SIGQUIT)
    for pid in below:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + QUIT_S
    while processes_below(folder) and time.monotonic() < deadline:
        time.sleep(0.02)


def shared_memory(folder: Path) -> list[str]:
    """System V segments named in lock files below `folder`."""
    found = []
    for path in folder.glob("**/postmaster.pid"):
        lines = path.read_text(encoding="ascii").splitlines()
        if len(lines) > 6 and len(lines[6].split()) == 2:
            found.append(lines[6].split()[1])
    return found
