"""TLS 1.3 between members: both show a certificate of the group's own authority, or do not speak.

Lives here: the three files, the contexts made of them, and TLS as a layer between a socket and a
`Connection`. Must not live here: who the peer is (`handshake` proves that inside).
Start reading at `Tls` and `TlsLayer`.

The authority in `ca` is the group's own: whoever holds a certificate of it may speak, under any
host name. A certificate whose alternative names include `node<id>` (DNS) is good for those nodes
only. The layer is made of memory buffers instead of `ssl=` of the loop because there a handshake
that fails is invisible: it could be neither counted, nor explained, nor would the place it takes
among unproven connections be given back.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from pgraft.core.types import NodeId

_NODE_NAME: Final = re.compile(r"node([1-9][0-9]{0,8})")
_READ_BYTES: Final = 256 << 10
_RECORDS: Final = frozenset({0x15, 0x16})
"""Kinds of TLS record that a handshake can begin with: an alert, a handshake."""
MISMATCH: Final = "ssl_enabled is on at one side and off at the other"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: this member's certificate (chain) and key, and the authority of the group."""

    cert: Path
    key: Path
    ca: Path


class TlsError(Exception):
    """These files cannot be used. The text names the file and says what is wrong with it."""


def _never_ask() -> str:
    raise ValueError("the key is protected by a passphrase: store it without one")


def _load(what: str, load: Callable[[], object]) -> None:
    try:
        load()
    except (OSError, ValueError) as error:  # SSLError is an OSError
        reason = error.reason if isinstance(error, ssl.SSLError) else str(error)
        raise TlsError(f"{what}: {reason or error}") from error


def _context(files: TlsFiles, purpose: int) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if purpose == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # nothing to resume: each connection is proven anew
    _load(f"ca file {files.ca}", lambda: context.load_verify_locations(cafile=files.ca))
    _load(f"key file {files.key}", files.key.read_bytes)
    _load(
        f"certificate {files.cert} with key {files.key}",
        lambda: context.load_cert_chain(files.cert, files.key, password=_never_ask),
    )
    return context


class Tls:
    """The certificates in force. Raises TlsError for files that cannot be used."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._server, self._client = self._read(files)

    def reload(self, files: TlsFiles | None = None) -> None:
        """New handshakes use what the files hold now (or other files), established ones go on.

        Raises TlsError; then what was in force stays in force.
        """
        chosen = files or self._files
        self._server, self._client = self._read(chosen)
        self._files = chosen

    def layer(self, inner: Inner, *, accepting: bool) -> TlsLayer:
        """TLS for one connection, with the certificates in force now."""
        context = self._server if accepting else self._client
        return TlsLayer(inner, context, accepting=accepting)

    @staticmethod
    def _read(files: TlsFiles) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        server = _context(files, ssl.PROTOCOL_TLS_SERVER)
        return server, _context(files, ssl.PROTOCOL_TLS_CLIENT)


def certified_nodes(certificate: dict[str, Any] | None) -> frozenset[NodeId]:
    """The nodes that a verified certificate is good for; none named: any."""
    names = (certificate or {}).get("subjectAltName", ())
    found = (_NODE_NAME.fullmatch(value) for kind, value in names if kind == "DNS")
    return frozenset(NodeId(int(match[1])) for match in found if match)


def is_tls(data: bytes) -> bool:
    """Whether a stream that should begin with a hello begins with a record of TLS."""
    return len(data) >= 3 and data[0] in _RECORDS and data[1] == 0x03


class Inner(asyncio.Protocol):
    """What is inside of the layer; `connection_made` comes when the handshake is done."""

    def connecting(self, transport: asyncio.Transport) -> None:
        """The socket is there. Closing it before the handshake is done is up to this side."""

    def certified(self, nodes: frozenset[NodeId]) -> None:
        """The peer's certificate was verified and is good for these nodes; none: for any."""

    def tls_failed(self, why: str, *, plain: bool) -> None:
        """There will be no connection, or it broke; `plain`: the peer speaks without TLS.

        `connection_lost` follows.
        """


class TlsLayer(asyncio.Protocol):
    """The asyncio protocol of a socket on which `inner` speaks through TLS."""

    def __init__(self, inner: Inner, context: ssl.SSLContext, *, accepting: bool) -> None:
        self._inner = inner
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=accepting)
        self._raw: asyncio.Transport | None = None
        self._is_open = False
        self._is_first = True
        self._failed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._raw = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._inner.connecting(self._raw)
        self._shake()

    def data_received(self, data: bytes) -> None:
        """Go on with the handshake, then pass on what was meant for the inside."""
        if self._failed:
            return
        if self._is_first and data[0] not in _RECORDS:
            self._fail(f"it does not speak TLS: {MISMATCH}", plain=True)
            return
        self._is_first = False
        self._incoming.write(data)
        if self._is_open or self._shake():
            self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on, also when the handshake was never done."""
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Flow control of the socket."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Flow control of the socket."""
        self._inner.resume_writing()

    def write(self, data: bytes) -> None:
        """Encrypt and send. What cannot be sent any more is dropped: the connection is ending."""
        view = memoryview(data)
        try:
            while view and not self._failed:  # bounded: a memory buffer takes at least one record
                view = view[self._tls.write(view) :]
        except ssl.SSLError as error:
            self._fail(_reason(error))
        self._flush()

    def _shake(self) -> bool:
        if self._raw is None or self._raw.is_closing():
            return False
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._fail(_reason(error))
            return False
        self._flush()
        self._is_open = True
        self._inner.certified(certified_nodes(self._tls.getpeercert()))
        self._inner.connection_made(_Stream(self, self._raw))
        return True

    def _read(self) -> None:
        raw = self._raw
        while raw is not None and not raw.is_closing() and not self._failed:  # bounded by incoming
            try:
                data = self._tls.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                self._flush()
                return
            except ssl.SSLError as error:
                self._fail(_reason(error))
                return
            if not data:  # the peer has ended TLS in order
                raw.close()
                return
            self._inner.data_received(data)

    def _flush(self) -> None:
        if self._outgoing.pending and self._raw is not None:
            self._raw.write(self._outgoing.read())

    def _fail(self, why: str, *, plain: bool = False) -> None:
        """Send the alert and no more."""
        self._failed = True
        self._flush()
        self._inner.tls_failed(why, plain=plain)
        if self._raw is not None:
            self._raw.close()  # not abort(): the alert must still reach the other side


class _Stream(asyncio.Transport):
    """What the inside writes to."""

    def __init__(self, layer: TlsLayer, raw: asyncio.Transport) -> None:
        super().__init__()
        self._layer = layer
        self._raw = raw

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._layer.write(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high=high, low=low)

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def close(self) -> None:
        self._raw.close()

    def abort(self) -> None:
        self._raw.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._raw.get_extra_info(name, default)


def _reason(error: ssl.SSLError) -> str:
    """What went wrong, from the point of view of whoever reads this node's log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    reason = (error.reason or str(error)).upper()
    if "DID_NOT_RETURN_A_CERTIFICATE" in reason:
        return "it shows no certificate"
    if "ALERT" in reason:
        said = reason.rpartition("ALERT_")[2].replace("_", " ").lower()
        return f"it does not accept this node's certificate or version ({said})"
    return reason.replace("_", " ").lower()
