"""What a good configuration is warned of: one line each, at start and by --validate."""

from __future__ import annotations

import contextlib
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from ramd.config.explain import is_off
from ramd.config.keys import Availability
from ramd.config.model import Config, all_fields
from ramd.config.nodes import node_key
from ramd.config.tls import SOON_S, TlsFault, examine


def warnings_of(config: Config, path: Path | None) -> Iterator[str]:
    """Warnings for `config`, read from `path`."""
    yield from _not_available(config)
    yield from _roles(config)
    yield from _sync_count(config)
    yield from _certificate(config)
    secrets = [name for name, _, key in all_fields() if key.secret and name in config.given]
    if path is not None and secrets:
        yield from _readable(path, secrets)


def _not_available(config: Config) -> Iterator[str]:
    for name, field, key in all_fields():
        if key.availability is Availability.SECURITY:
            continue  # a fault, not a warning
        if not is_off(getattr(config, name), field, key):
            yield f"{name}: {key.availability.value}"


def _roles(config: Config) -> Iterator[str]:
    first = min((entry.node_id for entry in config.nodes), default=None)
    for entry in config.nodes:
        if entry.role == "primary" and entry.node_id != first:
            yield (
                f"{node_key(entry.node_id, 'role')}: the first primary is the node with an "
                f"existing data directory, else node {first}"
            )


def _sync_count(config: Config) -> Iterator[str]:
    """No fault: the list is that of the forming, and nodes may have joined since."""
    others, wanted = len(config.nodes) - 1, config.num_sync_standbys
    if config.nodes and wanted > max(1, others) and config.synchronous_replication != "off":
        yield (
            f"num_sync_standbys: {wanted} replicas are to confirm, and the node list has {others}:"
            f" accepted are 1 to {max(1, others)}, unless more nodes have joined"
        )


def _certificate(config: Config) -> Iterator[str]:
    if config.tls is None:
        return
    with contextlib.suppress(TlsFault):  # a fault by its own rule
        found = examine(config.tls)
        if found.until_unix_s - time.time() < SOON_S:
            yield f"ssl_cert_file: '{config.tls.cert}' expires on {found.until}"


def _readable(path: Path, secrets: list[str]) -> Iterator[str]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return
    if mode & 0o077:
        yield f"{', '.join(secrets)}: {path} can be read by others (mode {mode:04o}); chmod 600 it"
