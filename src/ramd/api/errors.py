"""Every error of the API as one envelope, whatever raised it.

Lives here: the mapping from exceptions to answers. Status and meaning of a code are those of
`ramd.domain.errors.CODES`; nothing here invents one.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ramd.domain.errors import CODES, RamdError, Refused
from ramd.schema.envelope import failure_of
from ramd.schema.requests import refusal

log = logging.getLogger(__name__)

HEADERS: dict[str, dict[str, str]] = {
    "unauthorized": {"www-authenticate": "Bearer"},
    "no_quorum": {"retry-after": "1"},
    "unavailable": {"retry-after": "1"},
}


def now_unix_ms() -> int:
    """Wall-clock time, for people only."""
    return time.time_ns() // 1_000_000


def of_ramd_error(error: RamdError, headers: Mapping[str, str] | None = None) -> Response:
    """The error envelope, with the headers that belong to its code."""
    envelope = failure_of(error, now_unix_ms=now_unix_ms())
    return Response(
        envelope.model_dump_json(),
        status_code=CODES[error.code].http_status,
        media_type="application/json",
        headers={**HEADERS.get(error.code, {}), **(headers or {})},
    )


def of_bug(error: Exception, what: str) -> Response:
    """An unexpected exception: the client gets an id, the log the same id and the traceback."""
    error_id = secrets.token_hex(6)
    log.error("error %s in %s", error_id, what, exc_info=error)
    return of_ramd_error(
        RamdError(
            f"internal error {error_id}", hint=f"search the daemon's log for error {error_id}"
        )
    )


def install(app: FastAPI) -> None:
    """Answer everything that routing and validation raise with the envelope."""
    app.add_exception_handler(RamdError, _on_ramd_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)


async def _on_ramd_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RamdError)
    return of_ramd_error(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 404:
        refused = Refused(f"there is no endpoint {path}", code="not_found")
    elif error.status_code == 405:
        refused = Refused(f"{request.method} is not for {path}", code="method_not_allowed")
    else:
        refused = Refused(str(error.detail), code="bad_request")
    return of_ramd_error(refused, error.headers)


async def _on_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return of_ramd_error(refusal(error.errors(), ()))
