"""The PostgreSQL server beside the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ramd.config.keys import (
    Availability,
    Key,
    Name,
    OptionalPath,
    Port,
    RequiredPath,
    Switch,
    Topic,
    Whole,
    Word,
    Words,
    parse_name,
    parse_switch,
)

METHOD_SYNONYMS = {"none": "trust", "scram": "scram-sha-256"}


def parse_method(value: object) -> object:
    """A method of authentication in lower case, `none` and `scram` under their full names."""
    if not isinstance(value, str):
        return value
    return METHOD_SYNONYMS.get(value.lower(), value.lower())


def parse_mode(value: object) -> object:
    """`auto`, or any word for true or false."""
    if not isinstance(value, str) or value.lower() == "auto":
        return value.lower() if isinstance(value, str) else value
    return "on" if parse_switch(value) else "off"


def parse_node_names(value: object) -> object:
    """Text → tuple of names; `*` and nothing are every node."""
    if not isinstance(value, str):
        return value
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    return () if names == ("*",) else tuple(str(parse_name(name)) for name in names)


class PostgresqlKeys(Topic):
    """PostgreSQL."""

    postgresql_port: Annotated[Port, Key("Port of this node's server.")] = 5432
    postgresql_data_dir: Annotated[
        RequiredPath,
        Key(
            "Data directory of this node's server.",
            accepts="an absolute path",
            required=True,
            danger="A directory that is not empty and no data directory is never touched.",
        ),
    ]
    postgresql_bin_dir: Annotated[
        OptionalPath,
        Key(
            "Directory of `postgres`, `initdb` and the other programs of PostgreSQL 15 to 18.",
            default_text="the server that came with RAMD's extra `embedded`",
            accepts="an absolute path of a directory that holds them",
            example="/usr/lib/postgresql/18/bin",
        ),
    ] = None
    postgresql_log_dir: Annotated[
        RequiredPath,
        Key(
            "Directory of the server's own log.",
            default_text="<state_dir>/log",
            accepts="an absolute path outside postgresql_data_dir",
            example="/var/log/postgresql",
        ),
    ] = Path()
    database_name: Annotated[
        Name,
        Key(
            "Database the daemon connects to.",
            accepts="letters, digits, '_', '.' and '-', at most 63",
        ),
    ] = "postgres"
    database_user: Annotated[
        Name,
        Key(
            "Superuser of the server; the daemon connects as it over a Unix socket.",
            accepts="letters, digits, '_', '.' and '-', at most 63",
        ),
    ] = "postgres"
    postgresql_password: Annotated[
        str,
        Field(repr=False, max_length=512),
        Key(
            "Password given to `database_user`; switches SCRAM on for every TCP address.",
            accepts="at most 512 characters",
            secret=True,
            danger="Give it in a file that only the daemon's user can read.",
        ),
    ] = ""
    replication_user: Annotated[
        Name,
        Key(
            "Role of the replicas; made by RAMD with a password of its own.",
            accepts="letters, digits, '_', '.' and '-', at most 63; not database_user",
        ),
    ] = "replicator"
    auth_method: Annotated[
        Literal["trust", "scram-sha-256"],
        BeforeValidator(parse_method),
        Key(
            "How clients that come by TCP prove who they are to PostgreSQL.",
            default_text="trust if every node is on this host and no password is set, "
            "else scram-sha-256",
            accepts="trust (one host only) or scram-sha-256; no other method is available",
            example="scram-sha-256",
        ),
    ] = "trust"
    initdb_options: Annotated[
        Words,
        Key(
            "Further options of initdb, for a data directory that RAMD makes. Unless they say "
            "otherwise it is in UTF-8 with the C.UTF-8 locale, with checksums, and with WAL "
            "segments of 4 MB (`--wal-segsize`): small ones make promotions faster.",
            accepts="options of initdb other than those that name directory, user, password "
            "or authentication",
            danger="`--no-sync` may lose a new cluster in a power failure.",
            example="--data-checksums --locale=C.UTF-8",
        ),
    ] = ()
    connection_timeout: Annotated[
        Whole,
        Field(ge=1, le=300),
        Key(
            "How long a connection to the server may take.",
            unit="seconds",
            availability=Availability.PLANNED,
        ),
    ] = 5
    query_timeout: Annotated[
        Whole,
        Field(ge=1, le=3600),
        Key(
            "How long one statement of the daemon may take.",
            unit="seconds",
            availability=Availability.PLANNED,
        ),
    ] = 30
    connection_pool_size: Annotated[
        Whole,
        Field(ge=1, le=1000),
        Key("Number of connections the daemon may keep open.", availability=Availability.PLANNED),
    ] = 10


class SynchronousKeys(Topic):
    """Synchronous replication."""

    synchronous_replication: Annotated[
        Literal["auto", "on", "off"],
        BeforeValidator(parse_mode),
        Key(
            "A commit waits for replicas before it is acknowledged; then no failover loses it.",
            accepts="auto (if there are two replicas or more), on or true, off or false",
            cluster_wide=True,
            danger="Without it a failover may lose the last commits.",
        ),
    ] = "auto"
    sync_standby_names: Annotated[
        tuple[str, ...],
        BeforeValidator(parse_node_names),
        Field(max_length=9),
        Key(
            "Nodes that may confirm a commit.",
            default_text="every replica that is not tagged `nosync`",
            accepts="names of nodes, with commas between them, or `*`",
            cluster_wide=True,
        ),
    ] = ()
    num_sync_standbys: Annotated[
        Whole,
        Field(ge=1, le=8),
        Key("How many replicas must confirm.", cluster_wide=True),
    ] = 1
    sync_replication_timeout_ms: Annotated[
        Whole,
        Field(ge=100, le=3_600_000),
        Key(
            "How long writes wait for lost synchronous replicas before they go on without them.",
            unit="milliseconds",
            cluster_wide=True,
        ),
    ] = 10_000
    enforce_sync_standbys: Annotated[
        Switch,
        Key(
            "Rather let writes wait, however long, than go on with fewer replicas.",
            cluster_wide=True,
        ),
    ] = False
    nosync: Annotated[Switch, Key("Never wait for this node to confirm a commit.")] = False


class BackupKeys(Topic):
    """Backup."""

    backup_tool: Annotated[
        Literal["none", "builtin", "pgbackrest", "barman"],
        Word,
        Key("Program that makes backups.", availability=Availability.PLANNED),
    ] = "none"
    backup_repository: Annotated[
        OptionalPath,
        Key(
            "Directory that receives backups.",
            availability=Availability.PLANNED,
            accepts="an absolute path",
            example="/var/lib/ramd/backups",
        ),
    ] = None
    backup_retention_days: Annotated[
        Whole,
        Field(ge=1, le=36_500),
        Key("How long a backup is kept.", unit="days", availability=Availability.PLANNED),
    ] = 7
    backup_compression: Annotated[
        Literal["none", "gzip", "lz4", "zstd"],
        Word,
        Key("How backups are compressed.", availability=Availability.PLANNED),
    ] = "none"


class MaintenanceKeys(Topic):
    """Maintenance."""

    maintenance_mode_enabled: Annotated[
        Switch,
        Key("Start this node in maintenance.", availability=Availability.PLANNED),
    ] = False
    maintenance_drain_timeout_ms: Annotated[
        Whole,
        Field(ge=0, le=3_600_000),
        Key(
            "How long sessions may go on when maintenance begins.",
            unit="milliseconds",
            availability=Availability.PLANNED,
        ),
    ] = 30_000
    maintenance_backup_before: Annotated[
        Switch,
        Key("Make a backup before maintenance begins.", availability=Availability.PLANNED),
    ] = False


UNSET_DATA_DIR = Path("/nonexistent/postgresql_data_dir")
"""Stands for a missing or faulty data directory while the other keys are checked."""
