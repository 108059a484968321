"""Who may ask, and how much: the values that the API is made with.

Plain values, without any web library: whoever builds the API reads them before it is imported.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from ramd.domain.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the API. Writes answer within their own limit plus two seconds."""

    body_bytes_max: int = 1024 * 1024
    request_timeout_s: float = 30.0
    """For a request's body to arrive, and for a read to be answered."""
    create_timeout_s: float = 180.0
    destroy_timeout_s: float = 60.0
    failover_timeout_s: float = 60.0
    recover_timeout_s: float = 180.0
    writes_max: int = 8
    """Writes under way at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """Who may ask. Token None: everybody. An empty token is refused (ConfigError): it would open
    the door to whoever sends none."""

    token: str | None = None

    def __post_init__(self) -> None:
        if self.token is not None and not self.token.strip():
            raise ConfigError("http_auth_enabled needs a token", field="http_auth_token")

    def admits(self, header: bytes | None) -> bool:
        """Whether an Authorization header carries the token. The comparison takes constant time."""
        if self.token is None:
            return True
        scheme, _, given = (header or b"").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(
            given.strip(), self.token.encode()
        )
