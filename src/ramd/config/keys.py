"""How a key is described, and the kinds of values that keys have.

Lives here: `Key` (what stands beside a field in a topic) and the parsers from text. No key itself.
A parser raises ValueError with what is wrong; what would be right is told by `Key` and the bounds.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ramd.config.faults import shown


class Availability(StrEnum):
    """What happens when a key is given a value other than its default."""

    AVAILABLE = "available"
    PLANNED = "not available in this version"
    """Accepted with one warning, without effect."""
    RETIRED = "has no effect in RAMD"
    """Accepted with one warning; a name of the past."""
    SECURITY = "refused in this version"
    """Refuses to start: somebody relies on a protection that is not there."""


@dataclass(frozen=True, slots=True)
class Key:
    """Everything about a key that its type, bounds and default do not say."""

    doc: str
    """One sentence: what it is for."""
    unit: str = ""
    reload: bool = False
    """A running daemon takes a new value without a restart."""
    cluster_wide: bool = False
    """Only the value at the first forming counts; later the group's own settings do."""
    danger: str = ""
    availability: Availability = Availability.AVAILABLE
    default_text: str = ""
    """Shown for the default where it is derived from other keys."""
    accepts: str = ""
    """What would be right, where type and bounds do not tell."""
    secret: bool = False
    """Its value is never printed."""
    harmless: tuple[object, ...] = ()
    """Values besides the default that switch nothing on."""
    required: bool = False
    example: str = ""
    """For the sample file, where the default is empty."""


class Topic(BaseModel):
    """Base of the groups of keys. The docstring of a group heads it in the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


TRUE_WORDS = frozenset({"true", "on", "yes", "1"})
FALSE_WORDS = frozenset({"false", "off", "no", "0"})
WHOLE = re.compile(r"[+-]?[0-9]{1,18}\Z")
DECIMAL = re.compile(r"[+-]?[0-9]{1,12}(\.[0-9]{1,9})?\Z")
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?\Z")
HOST_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z")
HOST_CHARACTERS_MAX = 253
TOKEN = re.compile(r"[!-~]{8,512}\Z")
PATH_BYTES_MAX = 1024


def parse_switch(value: object) -> object:
    """Text → bool."""
    if not isinstance(value, str):
        return value
    word = value.lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError(f"{shown(value)} is neither true nor false")


def parse_whole(value: object) -> object:
    """Text → int; plain decimal digits only."""
    if not isinstance(value, str):
        return value
    if not WHOLE.match(value):
        raise ValueError(f"{shown(value)} is not a whole number")
    return int(value)


def parse_decimal(value: object) -> object:
    """Text or int → float."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, str):
        return value
    if not DECIMAL.match(value):
        raise ValueError(f"{shown(value)} is not a number")
    return float(value)


def parse_word(value: object) -> object:
    """Text in lower case, for keys with a list of words."""
    return value.lower() if isinstance(value, str) else value


def parse_path(value: object) -> object:
    """Text → absolute path without `.` and `..`, '' → None."""
    if not isinstance(value, str):
        return value
    if not value:
        return None
    path = Path(value)
    if not path.is_absolute():
        raise ValueError(f"{shown(value)} is not an absolute path")
    if ".." in path.parts:
        raise ValueError(f"{shown(value)} contains '..'")
    if len(value.encode()) > PATH_BYTES_MAX or not value.isprintable():
        raise ValueError(f"{shown(value)} is not a usable path")
    return path


def parse_name(value: object) -> object:
    """A name of a cluster, node, role or database: letters, digits, `_`, `.`, `-`; 63 at most."""
    if isinstance(value, str) and value and not NAME.match(value):
        raise ValueError(f"{shown(value)} is not a usable name")
    return value


def parse_host(value: object) -> object:
    """An IP address or host name; brackets around IPv6 are dropped."""
    if not isinstance(value, str) or not value:
        return value
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if is_address(bare):
        return bare
    labels = bare.removesuffix(".").split(".")
    if len(bare) > HOST_CHARACTERS_MAX or not all(HOST_LABEL.match(label) for label in labels):
        raise ValueError(f"{shown(value)} is neither an IP address nor a host name")
    if all(label.isdigit() for label in labels):
        raise ValueError(f"{shown(value)} is not a valid IP address")
    return bare


def parse_token(value: object) -> object:
    """A bearer token: 8 to 512 printable ASCII characters without spaces."""
    if isinstance(value, str) and value and not TOKEN.match(value):
        raise ValueError("its value is no usable token")
    return value


def parse_words(value: object) -> object:
    """Text → tuple of words, split as a shell does."""
    if not isinstance(value, str):
        return value
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise ValueError(f"{shown(value)} cannot be split into words ({error})") from error


def parse_addresses(value: object) -> object:
    """Text → tuple of `host:port`, given with commas or spaces between them."""
    if not isinstance(value, str):
        return value
    return tuple(_host_port(word) for word in value.replace(",", " ").split())


def _host_port(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{shown(text)} is not host:port")
    bare = str(parse_host(host))
    return f"[{bare}]:{int(port)}" if ":" in bare else f"{bare}:{int(port)}"


def host_of(address: str) -> str:
    """The host of a `host:port`, without the brackets around IPv6."""
    return address.rpartition(":")[0].removeprefix("[").removesuffix("]")


def is_address(text: str) -> bool:
    """Is it an IPv4 or IPv6 address?"""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Does the name or address surely mean this host only? No name is looked up."""
    if is_address(host):
        return ipaddress.ip_address(host).is_loopback
    name = host.lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")


Switch: TypeAlias = Annotated[bool, BeforeValidator(parse_switch)]
Whole: TypeAlias = Annotated[int, BeforeValidator(parse_whole)]
Decimal: TypeAlias = Annotated[float, BeforeValidator(parse_decimal)]
Port: TypeAlias = Annotated[int, BeforeValidator(parse_whole), Field(ge=1, le=65535)]
Host: TypeAlias = Annotated[str, BeforeValidator(parse_host), Field(min_length=1)]
OptionalHost: TypeAlias = Annotated[str, BeforeValidator(parse_host)]
Name: TypeAlias = Annotated[str, BeforeValidator(parse_name), Field(min_length=1)]
OptionalName: TypeAlias = Annotated[str, BeforeValidator(parse_name)]
RequiredPath: TypeAlias = Annotated[Path, BeforeValidator(parse_path)]
OptionalPath: TypeAlias = Annotated[Path | None, BeforeValidator(parse_path)]
Token: TypeAlias = Annotated[str, BeforeValidator(parse_token)]
Words: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(parse_words)]
Addresses: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(parse_addresses)]
Word = BeforeValidator(parse_word)
