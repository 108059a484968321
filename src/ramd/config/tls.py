"""Whether certificate, key and authority can be used together, found out by using them.

Lives here: `examine`, which makes a handshake of the files with themselves in memory, so that
everything a real one would refuse is found: a key that does not fit, a chain that does not lead to
the authority, a date. Must not live here: contexts that serve. Standard library only.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOON_S = 14 * 86_400
"""A certificate that expires within this is worth a warning."""
STEPS_MAX = 10
NODE_NAME = re.compile(r"node([1-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPaths:
    """The three files of a node."""

    cert: Path
    key: Path
    ca: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFindings:
    """What a usable set of files says of itself; times are seconds since 1970."""

    until_unix_s: float
    nodes: frozenset[int] = frozenset()
    """For which nodes it is good, by names `node1` … in it; empty: for any."""

    @property
    def until(self) -> str:
        """The end of its validity, for people."""
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.until_unix_s))


class TlsFault(Exception):
    """A file that cannot be used: its key in ramd.conf, what is wrong, what would be right."""

    def __init__(self, field: str, wrong: str, right: str) -> None:
        super().__init__(f"{field}: {wrong}; {right}")
        self.field = field
        self.wrong = wrong
        self.right = right


def examine(paths: TlsPaths) -> TlsFindings:
    """The findings about files that another node with the same authority would accept.

    Raises TlsFault for the first that it would not, or that others could read.
    """
    _readable("ssl_cert_file", paths.cert, "the certificate, PEM, followed by those in between")
    _readable("ssl_ca_file", paths.ca, "the authority's certificate, PEM")
    _readable("ssl_key_file", paths.key, "the private key, PEM")
    _private(paths.key)
    server = _context(ssl.PROTOCOL_TLS_SERVER, paths)
    client = _context(ssl.PROTOCOL_TLS_CLIENT, paths)
    return _shake_hands(server, client, paths)


def _readable(field: str, path: Path, right: str) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise TlsFault(field, f"'{path}' cannot be read ({error.strerror})", right) from error


def _private(path: Path) -> None:
    """As PostgreSQL wants it: the owner's alone, or root's and readable by a group."""
    status = path.stat()
    if status.st_uid not in {os.geteuid(), 0}:
        raise TlsFault(
            "ssl_key_file",
            f"'{path}' belongs to another user (uid {status.st_uid})",
            f"chown {os.geteuid()}",
        )
    group_may = 0o040 if status.st_uid == 0 else 0
    if stat.S_IMODE(status.st_mode) & 0o077 & ~group_may:
        mode = stat.S_IMODE(status.st_mode)
        raise TlsFault(
            "ssl_key_file",
            f"'{path}' can be read by others (mode {mode:04o})",
            f"chmod 600 '{path}'",
        )


def _context(side: int, paths: TlsPaths) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(paths.ca)
    except ssl.SSLError as error:
        raise TlsFault(
            "ssl_ca_file", f"'{paths.ca}' holds no certificate ({_reason(error)})", "a PEM file"
        ) from error
    try:
        # An encrypted key would ask on the terminal, and a daemon has none.
        context.load_cert_chain(paths.cert, paths.key, password=_no_password)
    except (ssl.SSLError, _Encrypted) as error:
        raise _pair_fault(paths, error) from error
    return context


class _Encrypted(ValueError):
    """The key is protected by a password."""


def _no_password() -> str:
    raise _Encrypted("the key is encrypted")


def _pair_fault(paths: TlsPaths, error: Exception) -> TlsFault:
    if isinstance(error, _Encrypted):
        return TlsFault("ssl_key_file", f"'{paths.key}' is encrypted", "a key without a password")
    reason = _reason(error)
    if "mismatch" in reason:
        return TlsFault(
            "ssl_key_file",
            f"'{paths.key}' does not belong to the certificate '{paths.cert}'",
            "the key that the certificate was made with",
        )
    return TlsFault(
        "ssl_cert_file",
        f"'{paths.cert}' and '{paths.key}' cannot be used ({reason})",
        "a certificate and its key, both PEM",
    )


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, paths: TlsPaths) -> TlsFindings:
    """What the certificate says. Both sides show the same one and check it."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(down, up, server_side=False),
        server.wrap_bio(up, down, server_side=True),
    )
    try:
        for _ in range(STEPS_MAX):
            left = [end for end in ends if not _step(end)]
            if not left:
                break
    except ssl.SSLError as error:
        raise _chain_fault(paths, error) from error
    shown = ends[1].getpeercert()
    assert shown, "a handshake that asks for a certificate and ends has one"
    names = [str(name) for kind, name in _names(shown) if kind == "DNS"]
    nodes = (NODE_NAME.fullmatch(name) for name in names)
    return TlsFindings(
        until_unix_s=float(ssl.cert_time_to_seconds(str(shown["notAfter"]))),
        nodes=frozenset(int(found[1]) for found in nodes if found),
    )


def _names(shown: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    names: Iterable[tuple[str, str]] = shown.get("subjectAltName", ())
    return names


def _step(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _chain_fault(paths: TlsPaths, error: ssl.SSLError) -> TlsFault:
    reason = getattr(error, "verify_message", "") or _reason(error)
    if "expired" in reason or "not yet valid" in reason:
        return TlsFault("ssl_cert_file", f"'{paths.cert}': {reason}", "a certificate valid now")
    return TlsFault(
        "ssl_cert_file",
        f"'{paths.cert}' is not accepted with ssl_ca_file '{paths.ca}' ({reason})",
        "a certificate that this authority has signed, for servers and clients",
    )


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error).replace("_", " ").lower()
