"""Synchronous replication, as requests and answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ramd.schema.envelope import Answer
from ramd.schema.requests import Request

ModeWord = Literal["auto", "on", "off"]
NodeName = Annotated[str, Field(min_length=1, max_length=63)]


class SyncRequest(Request):
    """Change how commits wait for replicas; what is left out stays as it is."""

    mode: ModeWord | None = None
    num_sync_standbys: Annotated[int, Field(ge=1, le=8)] | None = None
    enforce_sync_standbys: bool | None = None
    sync_replication_timeout_ms: Annotated[int, Field(ge=100, le=3_600_000)] | None = None


class SyncNodeRequest(Request):
    """A replica that may, or may no longer, confirm commits."""

    node_name: NodeName


class SyncNodeView(Answer):
    """One node other than the primary, as the primary sees it."""

    id: int
    name: str
    may_confirm: bool
    """Not tagged nosync, and on the list if there is one."""
    member: bool
    """Commits may be confirmed by it now."""
    streaming: bool
    copy_id: str | None
    """Which copy of the data it holds; another one after every clone or rewind."""
    flushed_lsn: str | None
    """How far it has confirmed."""


class SyncStateView(Answer):
    """Whom commits wait for now."""

    mode: ModeWord
    synchronous: bool
    """Commits wait for replicas now."""
    waits_for: str
    """In words."""
    required: int
    """How many must confirm a commit now."""
    generation: int
    changing_to: str | None
    """What a change under way leads to, in words."""
    proven: bool
    """The primary's server is proven to go by the recorded set."""
    obstacle: str
    """What a proof or, once that is done, every commit waits for, for people."""


class SyncData(SyncStateView):
    """GET /sync-standbys/status and /replication/sync."""

    synchronous_standbys: tuple[str, ...]
    """Names of the nodes that may confirm a commit now."""
    num_sync_standbys: int
    any_n_enabled: bool
    """Any of them will do: always so."""
    sync_replication_timeout_ms: int
    enforce_sync_standbys: bool
    sync_standby_names: tuple[str, ...]
    """The list of nodes that may confirm; empty: all."""
    nodes: tuple[SyncNodeView, ...]
