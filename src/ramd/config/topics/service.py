"""The daemon as a process and its HTTP interface."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ramd.config.keys import (
    Availability,
    Host,
    Key,
    OptionalHost,
    OptionalName,
    OptionalPath,
    Port,
    Switch,
    Token,
    Topic,
    Whole,
)

LogLevel = Literal["debug", "info", "warning", "error"]

LEVEL_SYNONYMS = {
    "trace": "debug",
    "verbose": "debug",
    "notice": "info",
    "log": "info",
    "warn": "warning",
    "critical": "error",
    "fatal": "error",
    "panic": "error",
}


def parse_level(value: object) -> object:
    """A level in lower case; the levels of other programs map onto the four."""
    if not isinstance(value, str):
        return value
    return LEVEL_SYNONYMS.get(value.lower(), value.lower())


class HttpKeys(Topic):
    """HTTP interface."""

    http_api_enabled: Annotated[
        Switch,
        Key(
            "Serve the REST interface.",
            danger="Without it neither `ramctrl` nor a load balancer can ask this daemon.",
        ),
    ] = True
    http_bind_address: Annotated[
        Host,
        Key(
            "Address on which `http_port` listens.",
            accepts="an IP address or host name of this host",
            danger="Other than loopback it needs `http_auth_enabled`.",
        ),
    ] = "127.0.0.1"
    http_port: Annotated[Port, Key("Port of the REST interface.")] = 8008
    http_auth_enabled: Annotated[
        Switch,
        Key("Ask every request for a bearer token."),
    ] = False
    http_auth_token: Annotated[
        Token,
        Field(repr=False),
        Key(
            "The bearer token.",
            accepts="8 to 512 printable ASCII characters without spaces",
            secret=True,
            danger="Prefer `http_auth_token_file`: configuration files get copied around.",
        ),
    ] = ""
    http_auth_token_file: Annotated[
        OptionalPath,
        Key(
            "File whose first line is the bearer token.",
            accepts="an absolute path of a file that only its owner can read",
        ),
    ] = None
    http_request_timeout: Annotated[
        Whole,
        Field(ge=1, le=3600),
        Key("How long a client may take to send its request.", unit="seconds"),
    ] = 30
    http_max_request_size: Annotated[
        Whole,
        Field(ge=1024, le=67_108_864),
        Key("Largest body of a request.", unit="bytes"),
    ] = 1_048_576
    rate_limiting_enabled: Annotated[
        Switch,
        Key("Limit the requests of each client.", availability=Availability.PLANNED),
    ] = False
    rate_limit_requests_per_minute: Annotated[
        Whole,
        Field(ge=1, le=1_000_000),
        Key("Requests a client may send in a minute.", availability=Availability.PLANNED),
    ] = 100


class MetricsKeys(Topic):
    """Metrics."""

    prometheus_enabled: Annotated[
        Switch,
        Key("Serve the metrics on a port of their own, without a token."),
    ] = True
    prometheus_bind_address: Annotated[
        OptionalHost,
        Key(
            "Address on which `prometheus_port` listens.",
            default_text="http_bind_address",
            accepts="an IP address or host name of this host",
            danger="The metrics name nodes, addresses and positions to whoever can reach it.",
        ),
    ] = ""
    prometheus_port: Annotated[
        Port,
        Key("Port of the metrics; if another program has it, that is logged and no more."),
    ] = 9090
    prometheus_path: Annotated[
        str,
        Field(pattern=r"^/[A-Za-z0-9/_.-]{0,200}$"),
        Key("Path of the metrics on that port.", accepts="a path that begins with '/'"),
    ] = "/metrics"


class LogKeys(Topic):
    """Logging."""

    log_level: Annotated[
        LogLevel,
        BeforeValidator(parse_level),
        Key("Least severity that is logged.", reload=True),
    ] = "info"
    debug_mode: Annotated[Switch, Key("The same as `log_level = debug`.", reload=True)] = False
    log_format: Annotated[
        Literal["text", "json"],
        BeforeValidator(parse_level),
        Key("Lines for people, or one JSON object a line."),
    ] = "text"
    log_to_console: Annotated[Switch, Key("Log to standard error, unless in the background.")] = (
        True
    )
    log_file: Annotated[
        OptionalPath,
        Key(
            "File to log to.",
            accepts="an absolute path outside postgresql_data_dir",
            example="/var/log/ramd/ramd.log",
        ),
    ] = None
    log_rotation_size_mb: Annotated[
        Whole,
        Field(ge=0, le=102_400),
        Key(
            "Size at which `log_file` is rotated; 0 leaves that to others (logrotate).",
            unit="mebibytes",
        ),
    ] = 100
    log_rotation_count: Annotated[
        Whole, Field(ge=1, le=1000), Key("How many rotated files are kept.")
    ] = 5
    log_to_syslog: Annotated[Switch, Key("Log to the host's syslog as well.")] = False


class ProcessKeys(Topic):
    """Process."""

    daemonize: Annotated[
        Switch, Key("Go to the background once the daemon is ready (`--daemonize`).")
    ] = False
    pid_file: Annotated[
        OptionalPath,
        Key(
            "File that holds the daemon's process id, locked while it runs (`--pid-file`).",
            default_text="/tmp/ramd.pid in the background, else none; "
            "<state_dir>/ramd.pid is always written",
            accepts="an absolute path outside postgresql_data_dir",
            example="/run/ramd/ramd.pid",
        ),
    ] = None
    daemon_user: Annotated[
        OptionalName,
        Key(
            "User under whom PostgreSQL runs when the daemon runs as root.",
            default_text="owner of the data directory, else postgres, else nobody",
            accepts="the name of a user of this host other than root",
        ),
    ] = ""
    daemon_group: Annotated[
        OptionalName,
        Key(
            "Group under which PostgreSQL runs when the daemon runs as root.",
            default_text="the user's own group",
            accepts="the name of a group of this host",
        ),
    ] = ""
    working_directory: Annotated[
        OptionalPath,
        Key(
            "Directory in which the daemon runs.",
            default_text="unchanged; / in the background",
            accepts="an absolute path of a directory, outside postgresql_data_dir",
        ),
    ] = None
    memory_limit_mb: Annotated[
        Whole,
        Field(ge=0, le=1_048_576),
        Key(
            "Memory the daemon may use; 0 is no limit.",
            unit="mebibytes",
            availability=Availability.PLANNED,
        ),
    ] = 0
    cpu_limit_percent: Annotated[
        Whole,
        Field(ge=0, le=100),
        Key(
            "Share of a processor the daemon may use; 0 and 100 are no limit.",
            unit="percent",
            availability=Availability.PLANNED,
            harmless=(100,),
        ),
    ] = 0
    profiling_enabled: Annotated[
        Switch, Key("Record where the daemon spends its time.", availability=Availability.PLANNED)
    ] = False
