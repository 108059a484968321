"""HTTPS to the daemon: the context, and what its refusals mean to a person."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from ramd.domain.errors import ConfigError, PeerError, RamdError, Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How the daemon's certificate is judged. `ca_file` None: the host's own list counts."""

    verify: bool = True
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


def context_of(tls: Tls) -> ssl.SSLContext:
    """Raises ConfigError for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if tls.ca_file is not None:
            context.load_verify_locations(tls.ca_file)
        elif tls.verify:
            context.load_default_certs()
    except OSError as error:
        raise ConfigError(
            f"ssl_ca_file {tls.ca_file}: {_words(error)}", field="ssl_ca_file"
        ) from error
    if tls.cert_file is not None:
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file)
        except OSError as error:
            raise ConfigError(
                f"ssl_cert_file {tls.cert_file}: {_words(error)}", field="ssl_cert_file"
            ) from error
    return context


def refusal_of(error: ssl.SSLError, base_url: str) -> RamdError:
    """Why there is no connection: a certificate that is not accepted, or no TLS at all."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return PeerError(
            f"the certificate of {base_url} is not accepted: {error.verify_message}",
            hint="--ca-file or ssl_ca_file names the authority of the daemons' certificates; the "
            "certificate must name the host as it is asked for",
        )
    return Unavailable(
        f"no TLS at {base_url}: {_words(error)}",
        code="unreachable",
        hint="does the daemon there have ssl_enabled, and is it its http_port?",
    )


def _words(error: OSError) -> str:
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else error.strerror
    return str(reason or error).replace("_", " ").lower()
