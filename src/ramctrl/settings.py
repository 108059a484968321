"""Whom to ask and how to print: command line over ramctrl.conf over defaults.

Lives here: how the two are put together, and the token. The keys of the file and their defaults are
`ramd.config.client`'s. Start reading at `load`.
"""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ramctrl.tls import Tls
from ramd.config.client import ClientConfig, load_client
from ramd.domain.errors import ConfigError

DEFAULT_FILES = (Path("ramctrl.conf"), Path("/etc/ramctrl/ramctrl.conf"))
WRITE_TIMEOUT_S = 200.0
"""Longer than the daemon's own limit for a write, so that its answer is the one seen."""


class Format(StrEnum):
    """How answers are printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    TEXT = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What stood on the command line; None: nothing."""

    host: str | None = None
    port: int | None = None
    api_url: str | None = None
    token_file: Path | None = None
    timeout_s: float | None = None
    config: Path | None = None
    ca_file: Path | None = None
    format: Format | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that is settled before the first request."""

    host: str = "127.0.0.1"
    port: int = 8008
    token: str | None = None
    tls: Tls | None = None
    """None: plain HTTP."""
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 60.0
    write_timeout_s: float = WRITE_TIMEOUT_S
    retries_max: int = 0
    """Of reads, when no daemon answers."""
    retry_delay_s: float = 1.0
    format: Format = Format.TABLE
    color: bool = True
    """False: never, also on a terminal."""
    warnings: tuple[str, ...] = ()

    @property
    def base_url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def load(given: Given) -> Settings:
    """The settings that hold. Raises ConfigError naming file, key and what would be right."""
    path = given.config or next((p for p in DEFAULT_FILES if p.is_file()), None)
    file = load_client(path) if path is not None else ClientConfig()
    host, port = given.host or file.default_host, given.port or file.default_port
    secure = file.ssl_enabled or given.ca_file is not None
    if given.api_url is not None:
        secure, host, port = _split_url(given.api_url)
    return Settings(
        host=host,
        port=port,
        token=_token(given, file),
        tls=_tls(given, file) if secure else None,
        connect_timeout_s=given.timeout_s or float(file.connection_timeout),
        read_timeout_s=given.timeout_s or float(file.request_timeout),
        write_timeout_s=given.timeout_s or max(float(file.request_timeout), WRITE_TIMEOUT_S),
        retries_max=file.max_retries,
        retry_delay_s=float(file.retry_delay),
        format=given.format or Format(file.default_output_format),
        color=file.colored_output,
        warnings=_warnings(file, path),
    )


def _warnings(file: ClientConfig, path: Path | None) -> tuple[str, ...]:
    said = [f"{path}: {warning}" for warning in file.warnings]
    if path is not None and file.default_auth_token and path.stat().st_mode & 0o077:
        said.append(f"{path} holds a token and others may read it: chmod 600 {path}")
    return tuple(said)


def _token(given: Given, file: ClientConfig) -> str | None:
    """From --token-file, else as the file says; None: requests carry none."""
    path = given.token_file
    if path is None:
        if file.auth_method == "none":
            return None
        path = file.default_auth_token_file
    if path is None:
        return file.default_auth_token or None
    try:
        token = path.expanduser().read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the token file {path}: {error}") from error
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"the first line of {path} is not a token: one printable ASCII word")
    return token


def _tls(given: Given, file: ClientConfig) -> Tls:
    return Tls(
        verify=file.verify_ssl,
        ca_file=given.ca_file or file.ssl_ca_file,
        cert_file=file.ssl_cert_file,
        key_file=file.ssl_key_file,
    )


def _split_url(url: str) -> tuple[bool, str, int]:
    """(by TLS, host, port)."""
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url}: expected http://host:port or https://host:port")
    return parts.scheme == "https", parts.hostname, port or ClientConfig().default_port
