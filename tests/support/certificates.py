"""Certificates for tests, by a throw-away authority.

Must not live here: what is done with them. Start reading at `Authority`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import trustme

from pgraft.net.tls import TlsFiles


class Authority:
    """One authority, whose files are below `directory`."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory / name
        self._directory.mkdir(parents=True)
        self._ca = trustme.CA()
        self.ca = self._directory / "ca.crt"
        self.pem = self._ca.cert_pem.bytes()
        self.ca.write_bytes(self.pem)

    def issue(self, name: str, *alternatives: str, expired: bool = False) -> TlsFiles:
        """Files of a new certificate for these DNS names; the same `name` writes them again."""
        issued = self._ca.issue_cert(
            *(alternatives or ("a-host.example",)),
            not_after=datetime(2020, 1, 1, tzinfo=UTC) if expired else None,
        )
        files = TlsFiles(
            cert=self._directory / f"{name}.crt", key=self._directory / f"{name}.key", ca=self.ca
        )
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        files.cert.write_bytes(chain)
        issued.private_key_pem.write_to_path(files.key)
        return files
