"""Three members of either kind as processes on loopback: started, killed, started again.

Lives here: processes, ports, command lines, who leads. Must not live here: what is measured.
Start reading at `Group`. The kernel ends every member with the bench, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bench.consensus.clients import Client, ClientError, EtcdClient, PgraftClient
from bench.consensus.member import MemberOptions
from bench.consensus.setup import Files
from bench.consensus.wire import Standing
from bench.figures import RESULTS
from tests.support.ports import free_port_block

MEMBERS: Final = (1, 2, 3)
READY_S: Final = 60.0
LOOK_S: Final = 0.05
END_S: Final = 10.0
ROOT: Final = Path(__file__).resolve().parents[2]


class GroupError(Exception):
    """The group did not do what it must; the text holds what its members wrote last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions:
    """What both kinds are started with. `directory` is made."""

    directory: Path
    files: Files | None
    """None: without TLS, which only etcd's members do here."""
    heartbeat_ms: int
    election_ms: int
    loop: str = "asyncio"
    profile: bool = False
    """Whether every pgraft member leaves a profile in bench/results when it is ended."""


class Group(ABC):
    """Members 1 to 3. Used as a context: nothing of it is left afterwards but its directory."""

    name: str

    def __init__(self, options: GroupOptions) -> None:
        self.options = options
        ports = free_port_block(2 * len(MEMBERS))
        self.peer_ports = dict(zip(MEMBERS, ports[: len(MEMBERS)], strict=True))
        self.client_ports = dict(zip(MEMBERS, ports[len(MEMBERS) :], strict=True))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        options.directory.mkdir(mode=0o700)

    @abstractmethod
    def command(self, member: int) -> list[str]:
        """What a member is started with."""

    @abstractmethod
    def connect(self, member: int) -> Client:
        """A new client of this member. Raises ClientError."""

    def __enter__(self) -> Group:
        try:
            for member in MEMBERS:
                self.start(member)
            self.healthy()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, member: int) -> None:
        """Start it (again) on what its directory holds."""
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        with self._log(member).open("ab") as log:
            self._processes[member] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.command(member)],
                cwd=self.options.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self, member: int) -> float:
        """SIGKILL; returns the moment just before it (perf_counter)."""
        process = self._processes.pop(member)
        begun = time.perf_counter()
        process.send_signal(signal.SIGKILL)
        process.wait(END_S)
        return begun

    def freeze(self, member: int) -> float:
        """SIGSTOP, as if its host had gone without a word; the moment just before it."""
        begun = time.perf_counter()
        self.signal(member, signal.SIGSTOP)
        return begun

    def signal(self, member: int, number: signal.Signals) -> None:
        """Send it."""
        self._processes[member].send_signal(number)

    def healthy(self) -> int:
        """Wait until all members name one leader and have applied what it has; returns it.

        Raises GroupError.
        """
        until = time.monotonic() + READY_S
        seen: list[Standing] = []
        while time.monotonic() < until:
            with contextlib.suppress(ClientError):
                seen = self._standings()
                found = agreed(seen)
                if found is not None:
                    return MEMBERS[found]
            self._must_run()
            time.sleep(LOOK_S)
        raise GroupError(f"{self.name}: no healthy group in {READY_S:g} s: {seen}{self._wrote()}")

    def end(self, member: int) -> None:
        """SIGTERM, and wait."""
        process = self._processes.pop(member)
        process.send_signal(signal.SIGCONT)  # a frozen one could not end
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_S)

    def close(self) -> None:
        """End every member."""
        for member in list(self._processes):
            self.end(member)

    def _standings(self) -> list[Standing]:
        found = []
        for member in MEMBERS:
            client = self.connect(member)
            try:
                found.append(client.standing())
            finally:
                client.close()
        return found

    def _must_run(self) -> None:
        for member, process in self._processes.items():
            if process.poll() is not None:
                raise GroupError(f"{self.name} member {member} has ended{self._wrote()}")

    def _log(self, member: int) -> Path:
        return self.options.directory / f"member{member}.log"

    def _wrote(self) -> str:
        tails = (self._log(m).read_text(errors="replace")[-1000:] for m in MEMBERS)
        return "".join(f"\n--- member {m}\n{t}" for m, t in zip(MEMBERS, tails, strict=True))


def certified(options: GroupOptions) -> Files:
    """The certificates; a group without them is never asked by this bench's clients."""
    assert options.files is not None
    return options.files


def agreed(standings: list[Standing]) -> int | None:
    """The place in the list of the leader that all name, once all have applied what it had."""
    leaders = {standing.leader for standing in standings}
    members = [standing.member for standing in standings]
    if len(leaders) != 1 or (leader := leaders.pop()) not in members:
        return None
    place = members.index(leader)
    floor = standings[0].applied  # asked first: whoever applied as much since has caught up
    return place if all(standing.applied >= floor for standing in standings) else None


class PgraftGroup(Group):
    """Three processes of `bench.consensus.member`."""

    name = "pgraft"

    def command(self, member: int) -> list[str]:
        directory, files = self.options.directory, certified(self.options)
        options = MemberOptions(
            node=member,
            founders=tuple(f"127.0.0.1:{port}" for port in self.peer_ports.values()),
            directory=str(directory / f"member{member}"),
            client_port=self.client_ports[member],
            heartbeat_ms=self.options.heartbeat_ms,
            election_ms=self.options.election_ms,
            cert=str(files.cert),
            key=str(files.key),
            ca=str(files.ca),
            loop=self.options.loop,
            profile=str(RESULTS / f"member{member}.profile") if self.options.profile else "",
        )
        path = directory / f"member{member}.json"
        path.write_bytes(msgspec.json.encode(options))
        return [sys.executable, "-m", "bench.consensus.member", str(path)]

    def connect(self, member: int) -> Client:
        return PgraftClient(self.client_ports[member], certified(self.options))


class EtcdGroup(Group):
    """Three of Debian's etcd-server."""

    name = "etcd"

    def __init__(self, options: GroupOptions, etcd: str) -> None:
        super().__init__(options)
        self._etcd = etcd

    def command(self, member: int) -> list[str]:
        files = self.options.files
        host = "http://127.0.0.1" if files is None else "https://127.0.0.1"
        peer = f"{host}:{self.peer_ports[member]}"
        client = f"{host}:{self.client_ports[member]}"
        everybody = (f"m{m}={host}:{port}" for m, port in self.peer_ports.items())
        options = {
            "name": f"m{member}",
            "data-dir": str(self.options.directory / f"member{member}"),
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "initial-cluster": ",".join(everybody),
            "initial-cluster-state": "new",
            "heartbeat-interval": str(self.options.heartbeat_ms),
            "election-timeout": str(self.options.election_ms),
            "logger": "zap",
            "log-level": "error",
        }
        for prefix in ("", "peer-") if files is not None else ():
            assert files is not None
            options |= {
                f"{prefix}cert-file": str(files.cert),
                f"{prefix}key-file": str(files.key),
                f"{prefix}trusted-ca-file": str(files.ca),
                f"{prefix}client-cert-auth": "true",
            }
        return [self._etcd, *(f"--{name}={value}" for name, value in options.items())]

    def connect(self, member: int) -> Client:
        return EtcdClient(self.client_ports[member], certified(self.options))
