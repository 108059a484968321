"""The orders about members as use cases of the service: told, bounded in time, carried out.

Must not live here: what an order does (`orders`). Start reading at `MemberCases`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ramd import events
from ramd.domain.errors import OutcomeUnknown
from ramd.domain.service import (
    AddNodeRequest,
    AddNodeResult,
    AddVoterRequest,
    AddVoterResult,
    ReinitRequest,
    ReinitResult,
    RemoveNodeRequest,
    RemoveNodeResult,
)
from ramd.members import anew, orders

NS_PER_MS = 1_000_000


class MemberCases(ABC):
    """The part of `ramd.domain.service.Service` that is about members."""

    @abstractmethod
    def now_ns(self) -> int:
        """CLOCK_BOOTTIME now."""

    @abstractmethod
    def _desk(self) -> orders.Desk:
        """What an order needs of this daemon. Raises Refused `no_cluster`."""

    async def add_node(self, request: AddNodeRequest, *, timeout_s: float) -> AddNodeResult:
        async with self._order("add-node", request.actor, f"node {request.node_id or 'any'}"):
            async with asyncio.timeout(timeout_s):
                return await orders.add_node(self._desk(), request)

    async def remove_node(
        self, request: RemoveNodeRequest, *, timeout_s: float
    ) -> RemoveNodeResult:
        async with self._order("remove-node", request.actor, f"node {request.node_id}"):
            return await orders.remove_node(self._desk(), request, timeout_s=timeout_s)

    async def add_voter(self, request: AddVoterRequest, *, timeout_s: float) -> AddVoterResult:
        async with self._order("add-voter", request.actor, f"node {request.node_id}"):
            return await orders.add_voter(self._desk(), request, timeout_s=timeout_s)

    async def reinit(self, request: ReinitRequest, *, timeout_s: float) -> ReinitResult:
        async with self._order("reinit", request.actor, f"node {request.node_id}"):
            return await anew.reinit(self._desk(), request, timeout_s=timeout_s)

    @asynccontextmanager
    async def _order(self, operation: str, actor: str, what: str) -> AsyncIterator[None]:
        """Around an order of a person: its begin and its end are told. Raises OutcomeUnknown for
        one that ran out of time."""
        begun_ns = self.now_ns()
        events.emit(events.OperationRequested(operation=operation, actor=actor, what=what))
        try:
            yield
        except TimeoutError:
            raise OutcomeUnknown(f"{operation} did not end in time") from None
        duration_ms = (self.now_ns() - begun_ns) // NS_PER_MS
        events.emit(
            events.OperationFinished(operation=operation, outcome=what, duration_ms=duration_ms)
        )
