"""ramctrl's configuration file: few keys, read without pydantic, so that a command starts fast.

Lives here: the keys with type, default and sentence, and `load_client`. Syntax and messages are
those of ramd.conf.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ramd.config.faults import Fault, InvalidConfigError, nearest, shown
from ramd.config.lines import Setting, parse, read_text


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """How one key is read: `parse` raises ValueError; `right` says what it takes."""

    parse: Callable[[str], Any]
    right: str
    doc: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """What ramctrl assumes where the command line says nothing."""

    default_host: str = "127.0.0.1"
    default_port: int = 8008
    default_auth_token: str = ""
    default_auth_token_file: Path | None = None
    default_output_format: str = "table"
    colored_output: bool = True
    connection_timeout: int = 5
    request_timeout: int = 60
    max_retries: int = 3
    retry_delay: int = 1
    monitoring_interval: int = 2
    auth_method: str = "token"
    verify_ssl: bool = True
    ssl_enabled: bool = False
    ssl_cert_file: Path | None = None
    ssl_key_file: Path | None = None
    ssl_ca_file: Path | None = None
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"ClientConfig({self.default_host}:{self.default_port})"


def _between(low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(text)
        return int(text)

    return convert


def _one_of(*words: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(text)
        return text.lower()

    return convert


def _switch(text: str) -> bool:
    words = {"true": True, "on": True, "yes": True, "1": True}
    words |= {"false": False, "off": False, "no": False, "0": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _path(text: str) -> Path | None:
    if text and not Path(text).is_absolute():
        raise ValueError(text)
    return Path(text) if text else None


def _host(text: str) -> str:
    if not re.fullmatch(r"\[?[A-Za-z0-9_.:-]{1,253}\]?", text):
        raise ValueError(text)
    return text.strip("[]")


def _token(text: str) -> str:
    if text and not re.fullmatch(r"[!-~]{8,512}", text):
        raise ValueError
    return text


SECONDS = "a whole number of seconds from 1 to 3600"

CLIENT_KEYS: dict[str, ClientKey] = {
    "default_host": ClientKey(
        parse=_host, right="an IP address or host name", doc="Host of the daemon to ask."
    ),
    "default_port": ClientKey(
        parse=_between(1, 65535),
        right="a whole number from 1 to 65535",
        doc="Port of its REST interface.",
    ),
    "default_auth_token": ClientKey(
        parse=_token,
        right="8 to 512 printable ASCII characters without spaces",
        doc="Bearer token; prefer the file.",
    ),
    "default_auth_token_file": ClientKey(
        parse=_path, right="an absolute path", doc="File whose first line is the bearer token."
    ),
    "default_output_format": ClientKey(
        parse=_one_of("table", "json", "yaml", "text"),
        right="one of: table, json, yaml, text",
        doc="How answers are shown.",
    ),
    "colored_output": ClientKey(
        parse=_switch, right="true or false", doc="Use colours on a terminal."
    ),
    "connection_timeout": ClientKey(
        parse=_between(1, 3600), right=SECONDS, doc="How long to wait for a connection, in seconds."
    ),
    "request_timeout": ClientKey(
        parse=_between(1, 3600), right=SECONDS, doc="How long to wait for an answer, in seconds."
    ),
    "max_retries": ClientKey(
        parse=_between(0, 100),
        right="a whole number from 0 to 100",
        doc="How often a question (never a command) is asked again when no daemon answers.",
    ),
    "retry_delay": ClientKey(
        parse=_between(1, 3600), right=SECONDS, doc="Pause before asking again, in seconds."
    ),
    "monitoring_interval": ClientKey(
        parse=_between(1, 3600), right=SECONDS, doc="Pause between two pictures, in seconds."
    ),
    "auth_method": ClientKey(
        parse=_one_of("token", "none"),
        right="token or none; no other method is available",
        doc="How ramctrl proves who it is.",
    ),
    "verify_ssl": ClientKey(
        parse=_switch,
        right="true or false",
        doc="Check the daemon's certificate and its name; false only to find out what is wrong.",
    ),
    "ssl_enabled": ClientKey(
        parse=_switch, right="true or false", doc="Ask by HTTPS, as the daemon's `ssl_enabled`."
    ),
    "ssl_cert_file": ClientKey(
        parse=_path,
        right="an absolute path",
        doc="Own certificate, for a proxy that asks for one; a daemon never does.",
    ),
    "ssl_key_file": ClientKey(parse=_path, right="an absolute path", doc="Own private key."),
    "ssl_ca_file": ClientKey(
        parse=_path,
        right="an absolute path",
        doc="Authority of the daemons' certificates; without it the host's own list counts.",
    ),
}

DEFAULTS = ClientConfig()
assert set(CLIENT_KEYS) == {field.name for field in fields(ClientConfig)} - {"warnings"}


def load_client(path: Path) -> ClientConfig:
    """ramctrl's configuration in `path`. Raises InvalidConfigError with every fault found."""
    return load_client_text(read_text(path), str(path))


def load_client_text(text: str, source: str = "ramctrl.conf") -> ClientConfig:
    """As `load_client`, from text."""
    lines = parse(text, source)
    faults = list(lines.faults)
    values: dict[str, Any] = {}
    warnings: list[str] = []
    for name, setting in lines.settings.items():
        found = _read(setting)
        if isinstance(found, Fault):
            faults.append(found)
            continue
        values[name] = found[0]
    if values.get("verify_ssl") is False:
        warnings.append("verify_ssl: off: whoever answers is taken for the daemon")
    if faults:
        raise InvalidConfigError(faults)
    return replace(DEFAULTS, **values, warnings=tuple(warnings))


def _read(setting: Setting) -> tuple[Any] | Fault:
    key = CLIENT_KEYS.get(setting.key)
    if key is None:
        near = nearest(setting.key.lower(), list(CLIENT_KEYS))
        right = f"did you mean {near}?" if near else f"the keys are {', '.join(CLIENT_KEYS)}"
        wrong = "is not a key of ramctrl"
        return Fault(origin=setting.origin, key=setting.key, wrong=wrong, right=right)
    try:
        value = key.parse(setting.value)
    except ValueError:
        text = "its value" if "token" in setting.key else shown(setting.value)
        wrong = f"{text} cannot be used"
        return Fault(origin=setting.origin, key=setting.key, wrong=wrong, right=key.right)
    return (value,)
