"""Authorities and certificates for tests, as files with the modes that RAMD wants."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import trustme

from ramd.config.tls import TlsPaths

NAMES = ("localhost", "127.0.0.1", "::1")


class Authority:
    """One authority, and certificates of it below `place`."""

    def __init__(self, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self._authority = trustme.CA()
        self._place = place
        self.file = place / "ca.crt"
        self.file.write_bytes(self._authority.cert_pem.bytes())

    def issue(self, name: str, *names: str, not_after: dt.datetime | None = None) -> TlsPaths:
        """Certificate and key for `names` (all of this host if none), as `name`.crt and .key."""
        issued = self._authority.issue_cert(
            *(names or NAMES),
            not_after=not_after,
        )
        cert, key = self._place / f"{name}.crt", self._place / f"{name}.key"
        cert.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        key.touch(mode=0o600)
        key.write_bytes(issued.private_key_pem.bytes())
        return TlsPaths(cert=cert, key=key, ca=self.file)


def in_days(days: int) -> dt.datetime:
    """A moment for `not_after`."""
    return dt.datetime.now(dt.UTC) + dt.timedelta(days=days)


def tls_keys(files: TlsPaths) -> str:
    """The lines of a ramd.conf that switch TLS on with these files."""
    return (
        f"ssl_enabled = true\nssl_cert_file = {files.cert}\n"
        f"ssl_key_file = {files.key}\nssl_ca_file = {files.ca}\n"
    )
