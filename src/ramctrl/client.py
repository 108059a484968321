"""One request to the API of one daemon, by the standard library alone.

Lives here: the connection, its deadlines, and the errors that it can end with. Answers come back as
the envelope, plain data. Guarantee: a write that was sent and not answered is never reported as
failed, but as OutcomeUnknown.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from typing import Any, TypeAlias

from ramctrl.settings import Settings
from ramctrl.tls import context_of, refusal_of
from ramd.domain.errors import CODES, OutcomeUnknown, PeerError, RamdError, Unavailable

Envelope: TypeAlias = dict[str, Any]

API = "/api/v1"
ANSWER_BYTES_MAX = 16 * 1024 * 1024
LOOK_FIRST = "look at 'ramctrl cluster status' before trying again"


class ApiError(RamdError):
    """The daemon answered with an error; `envelope` is its answer."""

    def __init__(self, envelope: Envelope) -> None:
        details = envelope.get("details") or {}
        super().__init__(
            str(envelope.get("message", "the daemon answered with an error")),
            code=_code_of(envelope),
            hint=str(envelope.get("hint") or ""),
            field=str(details.get("field") or "") if isinstance(details, dict) else "",
        )
        self.envelope = envelope


class Client:
    """Asks the daemon that `settings` names."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def get(self, path: str) -> Envelope:
        """Raises Unavailable `unreachable` if nothing answers, ApiError, PeerError."""
        left = self._settings.retries_max
        while True:
            try:
                return self._exchange("GET", path, None)
            except Unavailable:
                if left == 0:
                    raise
                left -= 1
                time.sleep(self._settings.retry_delay_s)

    def post(self, path: str, body: dict[str, Any]) -> Envelope:
        """As `get`, and OutcomeUnknown once the request has been sent and no answer came.
        Never sent twice."""
        return self._exchange("POST", path, body)

    def _exchange(self, method: str, path: str, body: dict[str, Any] | None) -> Envelope:
        settings = self._settings
        connection = self._connection()
        try:
            self._connect(connection)
            timeout_s = settings.read_timeout_s if body is None else settings.write_timeout_s
            connection.sock.settimeout(timeout_s)
            return self._ask(connection, method, path, body)
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(method, error) from error
        except KeyboardInterrupt:
            if body is None:
                raise
            raise OutcomeUnknown(
                "interrupted; the daemon goes on with what it was asked", hint=LOOK_FIRST
            ) from None
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        settings = self._settings
        host, port, timeout_s = settings.host, settings.port, settings.connect_timeout_s
        if settings.tls is None:
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        context = context_of(settings.tls)
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        try:
            connection.connect()
        except ssl.SSLError as error:
            raise refusal_of(error, self._settings.base_url) from error
        except OSError as error:
            raise Unavailable(
                f"no daemon answers at {self._settings.base_url}: {_why(error)}",
                code="unreachable",
                hint="is ramd running there, with http_api_enabled, and are its http_bind_address "
                "and http_port the ones asked for? (--host, --port, ramctrl.conf)",
            ) from error

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: dict[str, Any] | None,
    ) -> Envelope:
        headers = {"Accept": "application/json", "Connection": "close"}
        if self._settings.token is not None:
            headers["Authorization"] = f"Bearer {self._settings.token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, API + path, body=data, headers=headers)
        response = connection.getresponse()
        text = response.read(ANSWER_BYTES_MAX + 1)
        return self._envelope(response.status, text)

    def _envelope(self, status: int, text: bytes) -> Envelope:
        try:
            envelope = json.loads(text) if len(text) <= ANSWER_BYTES_MAX else None
        except ValueError:
            envelope = None
        if not isinstance(envelope, dict) or envelope.get("status") not in ("success", "error"):
            raise PeerError(
                f"what answers at {self._settings.base_url} is not a RAMD daemon (HTTP {status})",
                hint="check --host and --port",
            )
        if envelope["status"] == "error":
            raise ApiError(envelope)
        return envelope

    def _broken(self, method: str, error: Exception) -> RamdError:
        base_url = self._settings.base_url
        if method == "GET":
            return Unavailable(
                f"the daemon at {base_url} did not answer: {_why(error)}", code="unreachable"
            )
        return OutcomeUnknown(
            f"the daemon at {base_url} was asked, but gave no answer: {_why(error)}",
            hint=LOOK_FIRST,
        )


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return str(error) or type(error).__name__


def _code_of(envelope: Envelope) -> str:
    """The stable code; of an older or newer daemon, the first code with the same HTTP status."""
    code = envelope.get("error")
    if isinstance(code, str) and code in CODES:
        return code
    status = envelope.get("code")
    return next((name for name, c in CODES.items() if c.http_status == status), "internal")
