"""Rules that look at more than one key, or at the host, as a table.

Lives here: `CHECKS` (pure) and `HOST_CHECKS` (look at files and users, change nothing). A check is
skipped when one of the keys it reads has a fault already. Adding a rule = adding a row.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ramd.config.explain import is_off
from ramd.config.host import HOST_RULES
from ramd.config.keys import Availability, host_of, is_loopback
from ramd.config.model import Config, all_fields
from ramd.config.names import SELECTORS
from ramd.config.nodes import OWN_KEYS, node_key
from ramd.config.problem import Problem

NOT_PROTECTED = "remove it: the daemon does not start as if it protected anything"
INITDB_REFUSED = (
    "-D", "--pgdata", "-U", "--username", "-W", "--pwprompt", "--pwfile", "-A", "--auth",
    "-X", "--waldir", "-?", "--help", "-V", "--version",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One rule: the keys it reads, and what it finds."""

    reads: tuple[str, ...]
    run: Callable[[Config], Iterable[Problem]]


def _not_honoured(config: Config) -> Iterator[Problem]:
    for name, field, key in all_fields():
        if key.availability is not Availability.SECURITY:
            continue
        if not is_off(getattr(config, name), field, key):
            yield Problem(
                name,
                "is not available in this version",
                key.accepts or NOT_PROTECTED,
            )


def _http_needs_token(config: Config) -> Iterator[Problem]:
    reachable = config.http_api_enabled and not is_loopback(config.http_bind_address)
    if reachable and not config.http_auth_enabled:
        yield Problem(
            "http_bind_address",
            f"'{config.http_bind_address}' is reachable from other hosts without a token",
            "set http_auth_enabled = true and http_auth_token_file, or bind to 127.0.0.1",
        )


def _tls_complete(config: Config) -> Iterator[Problem]:
    if config.ssl_enabled:
        for key in ("ssl_cert_file", "ssl_key_file"):
            if getattr(config, key) is None:
                yield Problem("ssl_enabled", f"needs {key}", f"set {key}")


def _token_given(config: Config) -> Iterator[Problem]:
    if config.http_auth_enabled and not (config.http_auth_token or config.http_auth_token_file):
        yield Problem("http_auth_enabled", "has no token to ask for", "set http_auth_token_file")


def _node_name(config: Config) -> Iterator[Problem]:
    name = config.node_name
    taken = name in SELECTORS or (name.startswith("replica") and name[7:].isdigit())
    if name.isdigit() or taken:
        yield Problem("node_name", f"'{name}' means something else to ramctrl", "another name")
    for entry in config.nodes:
        if entry.node_id != config.node_id and name == f"node{entry.node_id}":
            yield Problem("node_name", f"'{name}' is the name of node {entry.node_id}", "another")


def _node_listed(config: Config) -> Iterator[Problem]:
    if config.nodes and config.node_id not in {entry.node_id for entry in config.nodes}:
        listed = ", ".join(str(entry.node_id) for entry in config.nodes)
        yield Problem(
            "node_id",
            f"{config.node_id} is not in the node list ({listed})",
            f"add node_{config.node_id}_hostname or correct node_id",
        )


def _own_entry(config: Config) -> Iterator[Problem]:
    for entry in config.nodes:
        if entry.node_id != config.node_id:
            continue
        for field, key in OWN_KEYS.items():
            listed, own = getattr(entry, field), getattr(config, key)
            if listed != own:
                yield Problem(
                    node_key(entry.node_id, field),
                    f"'{listed}' differs from {key} '{own}' of this same node",
                    "make them equal or remove one",
                )


def _cluster_size(config: Config) -> Iterator[Problem]:
    if config.nodes and config.cluster_size != len(config.nodes):
        yield Problem(
            "cluster_size",
            f"is {config.cluster_size}, but the node list has {len(config.nodes)}",
            f"cluster_size = {len(config.nodes)}",
        )


def _one_primary(config: Config) -> Iterator[Problem]:
    primaries = [entry.node_id for entry in config.nodes if entry.role == "primary"]
    for number in primaries[1:]:
        yield Problem(
            node_key(number, "role"),
            f"node {primaries[0]} is the primary already",
            "one primary, the others replica",
        )


def _hosts_reachable(config: Config) -> Iterator[Problem]:
    local = [entry for entry in config.nodes if is_loopback(entry.hostname)]
    if 0 < len(local) < len(config.nodes):
        for entry in local:
            yield Problem(
                node_key(entry.node_id, "hostname"),
                f"'{entry.hostname}' means another host on every host",
                "a name or address by which all nodes reach it",
            )


def _raft_reachable(config: Config) -> Iterator[Problem]:
    address = config.raft_bind_address
    if not config.one_host and address and is_loopback(address):
        yield Problem(
            "raft_bind_address",
            f"'{address}' cannot be reached from the other hosts",
            "leave it out or name an address of this host",
        )


def _ports_distinct(config: Config) -> Iterator[Problem]:
    """No two of the ports that will be bound on one host are the same."""
    own = [entry for entry in config.nodes if entry.node_id == config.node_id]
    bound: dict[tuple[str, int], str] = {}
    listed = (*_listed_ports(config), *(() if own else _own_ports(config)))
    for host, port, key in (*listed, *_metrics_port(config)):
        place = ("loopback" if is_loopback(host) else host.lower(), port)
        first = bound.setdefault(place, key)
        if first != key:
            yield Problem(key, f"{port} is {first} on the same host", "give each its own port")


def _listed_ports(config: Config) -> Iterator[tuple[str, int, str]]:
    for entry in config.nodes:
        for field in ("port", "raft_port", "http_port"):
            yield entry.hostname, getattr(entry, field), node_key(entry.node_id, field)


def _own_ports(config: Config) -> Iterator[tuple[str, int, str]]:
    for key in ("postgresql_port", "raft_port", "http_port"):
        yield config.hostname, getattr(config, key), key


def _metrics_port(config: Config) -> Iterator[tuple[str, int, str]]:
    if config.prometheus_enabled:
        yield config.hostname, config.prometheus_port, "prometheus_port"


def _secret_needed(config: Config) -> Iterator[Problem]:
    if config.nodes and not config.one_host and config.cluster_secret_file is None:
        yield Problem(
            "cluster_secret_file",
            "is required when the nodes are on several hosts",
            "name a file with one long random line, the same on every host, mode 0600",
        )


def _join_complete(config: Config) -> Iterator[Problem]:
    if not config.join:
        if config.join_token_file is not None:
            yield Problem("join_token_file", "joins nothing without join", "set join, or remove it")
        return
    if config.join_token_file is None:
        yield Problem(
            "join", "needs join_token_file", "name the file with the token of `ramctrl nodes add`"
        )
    if config.cluster_secret_file is None:
        yield Problem(
            "cluster_secret_file",
            "is required to join",
            "name a copy of the cluster's secret file, mode 0600",
        )


def _join_reachable(config: Config) -> Iterator[Problem]:
    elsewhere = [a for a in config.join if not is_loopback(host_of(a))]
    if elsewhere and is_loopback(config.hostname):
        yield Problem(
            "hostname",
            f"'{config.hostname}' cannot be reached from {host_of(elsewhere[0])}",
            "the name or address under which this node was added",
        )


def _trust_on_one_host(config: Config) -> Iterator[Problem]:
    if config.auth_method == "trust" and not config.one_host:
        yield Problem(
            "auth_method",
            "trust lets every host of the network in as superuser",
            "scram-sha-256, or leave it out",
        )
    if config.auth_method == "trust" and config.postgresql_password:
        yield Problem(
            "auth_method", "trust never asks for postgresql_password", "remove one of the two"
        )


def _roles_distinct(config: Config) -> Iterator[Problem]:
    if config.replication_user == config.database_user:
        yield Problem(
            "replication_user",
            f"'{config.replication_user}' is database_user",
            "another name: RAMD makes the role and its password",
        )


def _initdb_options(config: Config) -> Iterator[Problem]:
    for option in config.initdb_options:
        name = option.split("=", 1)[0]
        short = name[:2] if not name.startswith("--") else name
        if name in INITDB_REFUSED or short in INITDB_REFUSED:
            yield Problem("initdb_options", f"{name} is RAMD's own to give", "remove it")


def _profile_times(config: Config) -> Iterator[Problem]:
    heartbeat, election = config.raft_heartbeat_ms, config.raft_election_timeout_ms
    if election < 3 * heartbeat:
        yield Problem(
            "raft_election_timeout_ms",
            f"{election} is less than three heartbeats (raft_heartbeat_ms is {heartbeat})",
            f"at least {3 * heartbeat}",
        )
    # 2.5 × the longest election timeout, which is 2·E.
    if config.primary_lease_ttl_ms < 5 * election:
        yield Problem(
            "primary_lease_ttl_ms",
            f"{config.primary_lease_ttl_ms} is less than 2.5 × the longest election timeout "
            f"(2 × raft_election_timeout_ms is {2 * election})",
            f"at least {5 * election}: losing the coordinator must not cost the primary its lease",
        )


PLACES = (
    "state_dir", "postgresql_log_dir", "log_file", "pid_file", "cluster_secret_file",
    "http_auth_token_file", "working_directory", "join_token_file",
    "ssl_cert_file", "ssl_key_file", "ssl_ca_file",
)  # fmt: skip


def _outside_data_dir(config: Config) -> Iterator[Problem]:
    data = _plain(config.postgresql_data_dir)
    if data == Path("/"):
        yield Problem("postgresql_data_dir", "'/' cannot be one", "a directory of its own")
        return
    for key in PLACES:
        place: Path | None = getattr(config, key)
        if place is None or (key not in config.given and place.is_relative_to(config.state_dir)):
            continue  # derived from state_dir, which has its own fault
        if _plain(place).is_relative_to(data):
            yield Problem(
                key,
                f"'{place}' is inside postgresql_data_dir",
                "a place outside: the data directory may be replaced as a whole",
            )
    if data.is_relative_to(_plain(config.state_dir)):
        yield Problem(
            "state_dir", f"'{config.state_dir}' contains postgresql_data_dir", "a place of its own"
        )


def _plain(path: Path) -> Path:
    """Without symbolic links, as far as the path exists."""
    return Path(os.path.realpath(path))


CHECKS: tuple[Check, ...] = (
    Check(reads=(), run=_not_honoured),
    Check(
        reads=("http_bind_address", "http_auth_enabled", "http_api_enabled"), run=_http_needs_token
    ),
    Check(reads=("http_auth_enabled", "http_auth_token", "http_auth_token_file"), run=_token_given),
    Check(reads=("node_name", "node_id", "nodes"), run=_node_name),
    Check(reads=("node_id", "nodes"), run=_node_listed),
    Check(
        reads=("node_id", "nodes", "hostname", "postgresql_port", "raft_port", "http_port"),
        run=_own_entry,
    ),
    Check(reads=("cluster_size", "nodes"), run=_cluster_size),
    Check(reads=("nodes",), run=_one_primary),
    Check(reads=("nodes", "hostname"), run=_hosts_reachable),
    Check(reads=("raft_bind_address", "nodes", "hostname"), run=_raft_reachable),
    Check(reads=("ssl_enabled", "ssl_cert_file", "ssl_key_file"), run=_tls_complete),
    Check(
        reads=(
            *("nodes", "node_id", "hostname", "postgresql_port", "raft_port", "http_port"),
            *("prometheus_enabled", "prometheus_port"),
        ),
        run=_ports_distinct,
    ),
    Check(reads=("nodes", "hostname", "cluster_secret_file"), run=_secret_needed),
    Check(reads=("join", "join_token_file", "cluster_secret_file"), run=_join_complete),
    Check(reads=("join", "hostname"), run=_join_reachable),
    Check(
        reads=("auth_method", "nodes", "hostname", "postgresql_password"), run=_trust_on_one_host
    ),
    Check(reads=("replication_user", "database_user"), run=_roles_distinct),
    Check(reads=("initdb_options",), run=_initdb_options),
    Check(
        reads=(
            "timing_profile",
            "raft_heartbeat_ms",
            "raft_election_timeout_ms",
            "primary_lease_ttl_ms",
        ),
        run=_profile_times,
    ),
)

HOST_CHECKS: tuple[Check, ...] = (
    Check(reads=("postgresql_data_dir", *PLACES), run=_outside_data_dir),
    *(Check(reads=reads, run=run) for reads, run in HOST_RULES),
)
