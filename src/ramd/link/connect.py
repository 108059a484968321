"""The channel to the other daemons, over TCP and, if the daemon has certificates, TLS."""

from __future__ import annotations

import random

from pgraft.identity import Identity
from pgraft.net.channel import Channel
from pgraft.net.tcp import TcpOptions, TcpTransport, addresses, parse_address
from pgraft.net.tls import TlsError
from ramd.domain.errors import ConfigError
from ramd.link.certificates import PeerTls


def channel_of(identity: Identity, *, listen: str, secret: bytes, tls: PeerTls) -> Channel:
    """A channel that does not listen yet. `tls` can renew its certificates from now on.

    Raises ConfigError for TLS files that cannot be used.
    """
    founders = identity.founders if identity.record is None else identity.record.founders()
    tcp = TcpOptions(
        listen=parse_address(listen),
        peers=addresses(founders, identity.node),
        secret=secret,
        tls=tls.files,
    )
    rng = random.Random(random.SystemRandom().getrandbits(64))
    try:
        transport = TcpTransport(identity, tcp, rng)
    except TlsError as error:
        raise ConfigError(str(error), field="ssl_cert_file") from error
    tls.serve(transport)
    return Channel(identity.node, transport)
