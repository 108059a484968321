"""Puts the API together: health routes, /api/v1, error envelopes, guard, OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from ramd.api import errors
from ramd.api.dispatch import Dispatcher
from ramd.api.guard import Guard
from ramd.api.health import CHECKS, health_routes
from ramd.api.limits import Auth, Limits
from ramd.api.metrics import PATHS, DaemonMetrics, Metered
from ramd.api.routes import PREFIX, Handlers, api_router
from ramd.api.sync import sync_router
from ramd.domain.service import Service


def build_app(
    service: Service,
    dispatcher: Dispatcher,
    *,
    auth: Auth,
    limits: Limits,
    metrics: DaemonMetrics | None = None,
) -> FastAPI:
    """The ASGI application. Takes some tens of milliseconds; call it before time matters."""
    metrics = metrics or DaemonMetrics(service)
    app = FastAPI(
        title="RAMD",
        version=service.snapshot().daemon.version,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        routes=[*health_routes(service), *metrics.routes()],
    )
    handlers = Handlers(service=service, dispatcher=dispatcher, limits=limits)
    app.include_router(api_router(handlers))
    app.include_router(sync_router(handlers))
    errors.install(app)
    app.add_middleware(Guard, auth=auth, limits=limits, open_paths={*CHECKS, *PATHS})
    app.add_middleware(Metered, meter=metrics.meter)  # outermost: refusals are counted too
    generate = app.openapi

    def described() -> dict[str, Any]:
        return _without_422(generate())

    app.openapi = described  # type: ignore[method-assign]
    return app


def _without_422(document: dict[str, Any]) -> dict[str, Any]:
    """FastAPI promises a 422 of its own shape; here wrong fields are 400 in the envelope."""
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document.get("components", {}).get("schemas", {}).pop(name, None)
    return document
