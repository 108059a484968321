"""TLS of the REST interface and the metrics: one context, whose certificate can be renewed.

Plain values and the standard library only: the daemon imports this module at its start. Must not
live here: the judgement of files (`ramd.config.tls`).
"""

from __future__ import annotations

import ssl
from pathlib import Path


class ServerTls:
    """What the HTTP servers show to clients. Clients are known by their token, not by a
    certificate: load balancers and scrapers have none."""

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self._files = (cert_file, key_file)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.load()

    def point(self, cert_file: Path, key_file: Path) -> None:
        """Take other files at the next `load`."""
        self._files = (cert_file, key_file)

    def load(self) -> None:
        """Show what the files hold now to whoever connects from now on.

        Raises OSError (ssl.SSLError is one). Only between two steps of the loop that accepts: the
        library does not expect the certificate to change under a handshake that begins.
        """
        self.context.load_cert_chain(*self._files)
