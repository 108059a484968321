"""Rules that look at this host: programs, users, files. Nothing is changed.

Lives here: `HOST_RULES`, rows of `ramd.config.checks`. The version of PostgreSQL is asked for by
`ramd.postgres`, which may run programs.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from ramd.config.model import Config
from ramd.config.problem import Problem
from ramd.config.secret_file import SecretFileError, read_secret
from ramd.config.tls import TlsFault, examine

PROGRAMS = ("postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_controldata", "pg_waldump")
SECRET_CHARACTERS_MIN = 16
JOIN_TOKEN_CHARACTERS_MIN = 32

Rule: TypeAlias = tuple[tuple[str, ...], Callable[[Config], Iterable[Problem]]]


def _what(path: Path) -> str:
    """'a directory', 'a file', 'absent', or why it cannot be seen."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "absent"
    except OSError as error:
        return f"not to be seen ({error.strerror})"
    return "a directory" if stat.S_ISDIR(mode) else "a file"


def _programs(config: Config) -> Iterator[Problem]:
    directory = config.postgresql_bin_dir
    if directory is None:
        return
    if _what(directory) != "a directory":
        yield Problem(
            "postgresql_bin_dir",
            f"'{directory}' is {_what(directory)}",
            "name the directory that holds postgres and initdb",
        )
        return
    missing = [name for name in PROGRAMS if not os.access(directory / name, os.X_OK)]
    if missing:
        yield Problem(
            "postgresql_bin_dir",
            f"'{directory}' does not hold {', '.join(missing)}",
            "name the directory that holds PostgreSQL's server programs",
        )


def _directories(config: Config) -> Iterator[Problem]:
    """What will be made if it is absent must not be anything else now."""
    for key in ("postgresql_data_dir", "state_dir", "postgresql_log_dir"):
        directory: Path = getattr(config, key)
        found = _what(directory)
        if found not in {"a directory", "absent"}:
            yield Problem(key, f"'{directory}' is {found}", "name a directory, or one to be made")


def _working_directory(config: Config) -> Iterator[Problem]:
    directory = config.working_directory
    if directory is not None and _what(directory) != "a directory":
        yield Problem(
            "working_directory", f"'{directory}' is {_what(directory)}", "name one that exists"
        )


def _parents(config: Config) -> Iterator[Problem]:
    """Files that the daemon makes need a directory; that is for a person to make."""
    for key in ("log_file", "pid_file"):
        path: Path | None = getattr(config, key)
        if path is None:
            continue
        if _what(path) == "a directory":
            yield Problem(key, f"'{path}' is a directory", "name a file")
        elif _what(path.parent) != "a directory":
            yield Problem(key, f"its directory '{path.parent}' is {_what(path.parent)}", "make it")


def _secret(config: Config) -> Iterator[Problem]:
    if config.cluster_secret_file is None:
        return
    try:
        read_secret(config.cluster_secret_file, what="secret", least=SECRET_CHARACTERS_MIN)
    except SecretFileError as error:
        yield Problem("cluster_secret_file", error.wrong, error.right)


def _join_token(config: Config) -> Iterator[Problem]:
    """Needed only while there is no state: afterwards the file may be gone."""
    joined = (config.state_dir / "raft" / "identity.json").exists()
    if config.join_token_file is None or not config.join or joined:
        return
    try:
        read_secret(config.join_token_file, what="join token", least=JOIN_TOKEN_CHARACTERS_MIN)
    except SecretFileError as error:
        yield Problem("join_token_file", error.wrong, error.right)


def _user(config: Config) -> Iterator[Problem]:
    if not config.daemon_user:
        return
    try:
        user = pwd.getpwnam(config.daemon_user)
    except KeyError:
        yield Problem(
            "daemon_user", f"there is no user '{config.daemon_user}' on this host", "make the user"
        )
        return
    if user.pw_uid == 0:
        yield Problem("daemon_user", "PostgreSQL does not run as root", "an ordinary user")
    elif os.geteuid() not in {0, user.pw_uid}:
        yield Problem(
            "daemon_user",
            f"only root can run PostgreSQL as '{config.daemon_user}'",
            "start the daemon as root or as that user, or leave the key out",
        )


def _group(config: Config) -> Iterator[Problem]:
    if not config.daemon_group:
        return
    try:
        grp.getgrnam(config.daemon_group)
    except KeyError:
        yield Problem(
            "daemon_group",
            f"there is no group '{config.daemon_group}' on this host",
            "make the group",
        )


def _tls(config: Config) -> Iterator[Problem]:
    """Certificate, key and authority are tried out together."""
    if config.tls is None:
        return
    try:
        found = examine(config.tls)
    except TlsFault as fault:
        yield Problem(fault.field, fault.wrong, fault.right)
        return
    if found.nodes and config.node_id not in found.nodes:
        names = ", ".join(f"node{node}" for node in sorted(found.nodes))
        yield Problem(
            "ssl_cert_file",
            f"'{config.tls.cert}' is good for {names} only, and this is node {config.node_id}",
            "a certificate with this node's name, or without any such name",
        )


HOST_RULES: tuple[Rule, ...] = (
    (("postgresql_bin_dir",), _programs),
    (("postgresql_data_dir", "state_dir", "postgresql_log_dir"), _directories),
    (("working_directory",), _working_directory),
    (("log_file", "pid_file"), _parents),
    (("cluster_secret_file",), _secret),
    (("ssl_enabled", "ssl_cert_file", "ssl_key_file", "ssl_ca_file", "node_id"), _tls),
    (("join_token_file", "join", "state_dir"), _join_token),
    (("daemon_user",), _user),
    (("daemon_group",), _group),
)
