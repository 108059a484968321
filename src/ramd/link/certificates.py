"""The TLS files with which this daemon proves itself to others, for every membership of its life.

Lives here: which files are in force, and that a running transport takes new ones. Must not live
here: whether files are good (`ramd.config.tls`), TLS itself (pgraft). Start reading at `PeerTls`.
"""

from __future__ import annotations

from pgraft.net.tcp import TcpTransport
from pgraft.net.tls import TlsError, TlsFiles
from ramd.config.tls import TlsPaths
from ramd.domain.errors import ConfigError


class PeerTls:
    """`paths` None: daemons speak to each other without TLS."""

    def __init__(self, paths: TlsPaths | None) -> None:
        self._paths = paths
        self._transport: TcpTransport | None = None

    @property
    def files(self) -> TlsFiles | None:
        """As the transport wants them."""
        if self._paths is None:
            return None
        return TlsFiles(cert=self._paths.cert, key=self._paths.key, ca=self._paths.ca)

    def serve(self, transport: TcpTransport) -> None:
        """From now on this is the transport that takes new files."""
        self._transport = transport

    def renew(self, paths: TlsPaths) -> None:
        """New connections use what these files hold now; established ones go on as they are.

        Raises ConfigError; what was in force stays in force then.
        """
        if self._paths is None:
            raise ConfigError("TLS is off: switching it on needs a restart", field="ssl_enabled")
        before, self._paths = self._paths, paths
        try:
            if self._transport is not None:
                self._transport.reload_tls(self.files)
        except TlsError as error:
            self._paths = before
            raise ConfigError(str(error), field="ssl_cert_file") from error
