"""A cluster on one host from one daemon: the files and daemons that `cluster create` makes.

It is the several-host formation on one host, not a second path: one ramd.conf per node that lists
all nodes, N-1 ordinary daemons started from them, and then everybody forms the group as anywhere.
Lives here: planning, the checks before anything is touched, making, and undoing exactly what was
made. Must not live here: the group itself. Start reading at `plan_nodes`, then `check`, `Made`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ramd.config.model import Config
from ramd.config.names import ENVIRONMENT_KEYS
from ramd.config.render import given_values, node_list, render_conf
from ramd.config.secret_file import cluster_secret
from ramd.config.tls import TlsFault, examine
from ramd.domain.errors import Refused
from ramd.domain.model import Member
from ramd.domain.service import CreateRequest
from ramd.link import RAFT_DIR
from ramd.postgres.account import Account, check_reachable
from ramd.postgres.orphans import WORKPLACES, kill_server_of

NODES_MAX = 9
SECRET_FILE = "cluster_secret"
CREATED_MARK = "created.json"
"""In the state directory of a daemon that create started: it exits when the cluster ends."""
STOP_TIMEOUT_S = 15.0
KILL_TIMEOUT_S = 5.0
HEADING = "Made by `cluster create` of node 1."

NODE_OWN_KEYS = frozenset({
    "node_id", "node_name", "hostname", "postgresql_data_dir", "state_dir", "postgresql_port",
    "raft_port", "rale_port", "http_port", "prometheus_port", "log_file", "postgresql_log_dir",
    "pid_file", "cluster_secret_file", "cluster_size", "node_priority", "nofailover", "daemonize",
})  # fmt: skip
"""Keys of node 1's file that the other nodes' files do not repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """One node of a cluster on this host."""

    member: Member
    data_dir: Path
    state_dir: Path
    log_dir: Path
    prometheus_port: int
    """0: no metrics on a port of their own."""

    @property
    def conf_file(self) -> Path:
        return self.state_dir / "ramd.conf"

    @property
    def log_file(self) -> Path:
        return self.log_dir / "ramd.log"


def plan_nodes(config: Config, request: CreateRequest) -> tuple[NodePlan, ...]:
    """Where every node of the wanted cluster goes. Touches nothing. Raises Refused."""
    if config.node_id != 1:
        raise Refused(
            f"this is node {config.node_id}; a cluster on one host is created by node 1",
            code="conflict",
            hint="ask the daemon whose file says node_id = 1",
        )
    if not 1 <= request.num_nodes <= NODES_MAX:
        raise Refused(
            f"{request.num_nodes} nodes: a cluster has 1 to {NODES_MAX}",
            code="invalid_field",
            field="num_nodes",
        )
    ports = _postgresql_ports(config, request)
    base = _base_dir(config, request)
    logs = Path(request.log_dir) if request.log_dir else None
    plans = tuple(
        _plan(config, number, ports[number - 1], base, logs)
        for number in range(1, request.num_nodes + 1)
    )
    _require_distinct_ports(plans)
    return plans


def _postgresql_ports(config: Config, request: CreateRequest) -> list[int]:
    first = request.primary_port or config.postgresql_port
    others = list(request.replica_ports)
    if others and len(others) != request.num_nodes - 1:
        raise Refused(
            f"{len(others)} ports for {request.num_nodes - 1} replicas",
            code="invalid_field",
            field="replica_ports",
            hint="give one port for each replica, or none",
        )
    return [first, *(others or [first + offset for offset in range(1, request.num_nodes)])]


def _base_dir(config: Config, request: CreateRequest) -> Path:
    own = config.postgresql_data_dir
    if not request.data_dir:
        return own.parent if own.name == "node1" else Path(f"{own}.cluster")
    base = Path(request.data_dir)
    if not base.is_absolute():
        raise Refused(f"{base} is not an absolute path", code="invalid_field", field="data_dir")
    if base / "node1" != own:
        raise Refused(
            f"{base / 'node1'} would be node 1's data directory, but its file says {own}",
            code="conflict",
            field="data_dir",
            hint=f"leave data_dir out, or set postgresql_data_dir = {base / 'node1'}",
        )
    return base


def _plan(config: Config, number: int, port: int, base: Path, logs: Path | None) -> NodePlan:
    step = number - 1
    own = number == 1
    data_dir = config.postgresql_data_dir if own else base / f"node{number}"
    state_dir = config.state_dir if own else base / f"node{number}.ramd"
    log_dir = logs / f"node{number}" if logs else state_dir / "log"
    return NodePlan(
        member=Member(
            node_id=number,
            name=config.node_name if own else f"node{number}",
            hostname=config.hostname,
            postgresql_port=port,
            raft_port=config.raft_port + step,
            http_port=config.http_port + step,
            priority=config.node_priority if own else 50,
            nofailover=config.nofailover if own else False,
        ),
        data_dir=data_dir,
        state_dir=state_dir,
        log_dir=config.postgresql_log_dir if own and not logs else log_dir,
        prometheus_port=config.prometheus_port + step if config.prometheus_enabled else 0,
    )


def _require_distinct_ports(plans: Iterable[NodePlan]) -> None:
    taken: dict[int, str] = {}
    for plan in plans:
        for what, port in _ports(plan):
            if not 1 <= port <= 65535:
                raise Refused(f"{what} would be {port}: a port is 1 to 65535", code="invalid_field")
            if port in taken:
                raise Refused(
                    f"port {port} is wanted for {taken[port]} and for {what}",
                    code="conflict",
                    hint="leave room for one port per node, or give replica_ports",
                )
            taken[port] = what


def _ports(plan: NodePlan) -> tuple[tuple[str, int], ...]:
    node = plan.member.name
    return (
        (f"PostgreSQL of {node}", plan.member.postgresql_port),
        (f"raft_port of {node}", plan.member.raft_port),
        (f"http_port of {node}", plan.member.http_port),
        *(((f"prometheus_port of {node}", plan.prometheus_port),) if plan.prometheus_port else ()),
    )


def check(plans: tuple[NodePlan, ...], account: Account, own_ports: frozenset[int]) -> None:
    """Everything that can be refused before anything is touched. Raises Refused, ConfigError.

    `own_ports` are those that node 1's daemon has bound already. Its data directory may hold a
    server's data to adopt: see `check_own`.
    """
    for plan in plans:
        for what, port in _ports(plan):
            if port not in own_ports:
                _require_free(what, plan.member.hostname, port)
    for plan in plans[1:]:
        _require_vacant(plan.data_dir)
        if not _left_behind(plan.state_dir):
            _require_vacant(plan.state_dir)
    check_reachable(account, [p for plan in plans for p in (plan.data_dir, plan.log_dir)])


def check_certificate(config: Config, plans: tuple[NodePlan, ...]) -> None:
    """Every node gets node 1's TLS files: they must be good for all. Raises Refused."""
    if config.tls is None:
        return
    try:
        nodes = examine(config.tls).nodes
    except TlsFault as fault:
        raise Refused(str(fault), field=fault.field) from fault
    barred = [plan.member.name for plan in plans if nodes and plan.member.node_id not in nodes]
    if barred:
        raise Refused(
            f"ssl_cert_file: {config.tls.cert} is not good for {', '.join(barred)}",
            hint="a cluster on one host uses one certificate: one without names such as node1",
        )


def _require_free(what: str, host: str, port: int) -> None:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise Refused(f"{host} cannot be resolved: {error}", field="hostname") from error
    with socket.socket(family, kind, proto) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            raise Refused(
                f"{what}: port {port} on {host} "
                + ("is in use" if taken else f"cannot be bound: {error.strerror}"),
                code="port_in_use",
                hint=f"`ss -ltnp 'sport = :{port}'` shows who listens there",
            ) from error


def check_own(directory: Path) -> None:
    """Node 1's data directory is absent, empty, or a data directory of PostgreSQL to be adopted.

    Whether its version and state fit is judged by its own daemon. Raises Refused.
    """
    if not (directory / "PG_VERSION").exists() or not (directory / "global/pg_control").exists():
        _require_vacant(directory)


def _left_behind(state_dir: Path) -> bool:
    """What stays of a node that an earlier create made and a destroy has ended: logs, the list of
    directories kept aside. It may be used again."""
    ended = (state_dir / CREATED_MARK).exists() and not (state_dir / RAFT_DIR).exists()
    return ended and not (state_dir / "local.json").exists()


def _require_vacant(directory: Path) -> None:
    try:
        entries = sorted(entry.name for entry in os.scandir(directory))
    except FileNotFoundError:
        return
    except OSError as error:
        raise Refused(f"{directory}: {error.strerror}", code="foreign_directory") from error
    if entries:
        raise Refused(
            f"{directory} is not empty (it holds {', '.join(entries[:3])})",
            code="foreign_directory",
            hint="move it away or choose another data_dir; nothing was changed",
        )


@dataclass(slots=True)
class Made:
    """What a create has made so far, so that exactly this can be undone."""

    directories: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)
    servers: list[Path] = field(default_factory=list)
    """Data directories of nodes that create started: absent or empty before."""
    workplaces: list[Path] = field(default_factory=list)
    """Where their daemons, killed with a clone half done, may have left it: absent before."""

    def directory(self, path: Path, mode: int = 0o711) -> None:
        """Make `path` and every missing parent, remembering each."""
        missing = [p for p in (path, *path.parents) if not p.exists()]
        for one in reversed(missing):
            one.mkdir(mode=mode)
            one.chmod(mode)
            self.directories.append(one)

    def write(self, plans: tuple[NodePlan, ...], config: Config) -> Path:
        """Secret and one ramd.conf per other node; returns node 1's secret file. The secret that
        its ramd.conf names, which a restart reads, is everybody's. ConfigError if unusable."""
        own = config.cluster_secret_file
        secret = cluster_secret(own).decode() if own else secrets.token_hex(32)
        for plan in plans:
            self.directory(plan.state_dir)
            self.directory(plan.log_dir)
            if plan is not plans[0] or own is None:
                self._file(secret_file(plan), secret + "\n")
        for plan in plans[1:]:
            # The data directory itself is the clone's to make.
            self.directory(plan.data_dir.parent)
            self.servers.append(plan.data_dir)
            beside = (plan.data_dir.with_name(f"{plan.data_dir.name}.{x}") for x in WORKPLACES)
            self.workplaces += [place for place in beside if not place.exists()]
            text = render_conf(node_settings(plan, plans, config), heading=HEADING)
            self._file(plan.conf_file, text)
            mark = json.dumps({"created_by_node": 1, "cluster_name": config.cluster_name})
            self._file(plan.state_dir / CREATED_MARK, mark + "\n")
        return own or secret_file(plans[0])

    def _file(self, path: Path, text: str) -> None:
        if not path.exists():
            self.files.append(path)
        _write_private(path, text)

    def launch(self, plan: NodePlan) -> None:
        """Start an ordinary daemon: own session, output to its log, no child that dies with us."""
        with plan.log_file.open("ab") as sink:
            self.daemons.append(
                subprocess.Popen(
                    [sys.executable, "-m", "ramd", "--config", str(plan.conf_file)],
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=sink,
                    start_new_session=True,
                    cwd="/",
                    # Variables that say who node 1 is would make every node node 1.
                    env={k: v for k, v in os.environ.items() if k not in ENVIRONMENT_KEYS},
                )
            )

    def fallen(self) -> tuple[int, int] | None:
        """(position, exit status) of a started daemon that has exited, None if all live."""
        for position, daemon in enumerate(self.daemons):
            status = daemon.poll()
            if status is not None:
                return position, status
        return None

    def undo(self) -> None:
        """End what was started and remove what was made, and nothing else. Blocks; bounded."""
        for daemon in self.daemons:
            if daemon.poll() is None:
                daemon.send_signal(signal.SIGKILL)
        for daemon in self.daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=STOP_TIMEOUT_S)
        for data_dir in self.servers:
            kill_server_of(data_dir, timeout_s=KILL_TIMEOUT_S)
            shutil.rmtree(data_dir, ignore_errors=True)
        for place in self.workplaces:
            shutil.rmtree(place, ignore_errors=True)
        for path in self.files:
            path.unlink(missing_ok=True)
        for directory in reversed(self.directories):
            shutil.rmtree(directory, ignore_errors=True)


def secret_file(plan: NodePlan) -> Path:
    """Where a local create puts a node's copy of the cluster secret."""
    return plan.state_dir / SECRET_FILE


def node_settings(plan: NodePlan, plans: tuple[NodePlan, ...], config: Config) -> dict[str, object]:
    """Everything one node's ramd.conf says: what node 1's says for any node, the node's own, and
    the list of all nodes."""
    own = plan.member
    common = {k: v for k, v in given_values(config).items() if k not in NODE_OWN_KEYS}
    return common | {
        "node_id": own.node_id,
        "node_name": own.name,
        "hostname": own.hostname,
        "cluster_name": config.cluster_name,
        "cluster_size": len(plans),
        "postgresql_data_dir": plan.data_dir,
        "state_dir": plan.state_dir,
        "postgresql_port": own.postgresql_port,
        "raft_port": own.raft_port,
        "http_port": own.http_port,
        "prometheus_port": plan.prometheus_port or None,
        "cluster_secret_file": secret_file(plan),
        "log_file": plan.log_file,
        # Its standard error goes to the same file: for what ends it before it can log.
        "log_to_console": False,
        "postgresql_log_dir": plan.log_dir,
        **node_list(other.member for other in plans),
    }


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def last_lines(path: Path, count: int = 3) -> str:
    """The end of a log, for an error message."""
    try:
        return " | ".join(path.read_text(errors="replace").strip().splitlines()[-count:])
    except OSError:
        return "its log cannot be read"
