"""Servers of tests: `nodes` makes them in throw-away directories and ends them all afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from ramd.domain.server import Upstream
from ramd.postgres.instance import Instance
from ramd.postgres.site import Site
from tests.support.postgres import DEBIAN_BIN, PostgresRoot, ServerCluster
from tests.support.wait import wait_for_async

START_MS = 30_000
READY_S = 30.0


class Nodes:
    """The servers of one test, opened when asked for."""

    def __init__(self, cluster: ServerCluster, stack: AsyncExitStack) -> None:
        self.cluster = cluster
        self._stack = stack

    async def open(self, node_id: int, **how: Any) -> Instance:
        """A node's server; every one that was opened is let go at the end of the test."""
        return await self._stack.enter_async_context(self.cluster.instance(node_id, **how))

    async def primary(self, **how: Any) -> Instance:
        """Node 1, running as the first primary, with roles and slots for all."""
        server = await self.open(1, from_template=True, **how)
        await server.start(replica=False, upstream=None, timeout_ms=START_MS)
        await accepting(server)
        await server.ensure_roles()
        await server.ensure_slots((1, 2, 3), primary=True)
        return server

    async def replica(self, node_id: int, of: int = 1, **how: Any) -> Instance:
        """A node cloned from another and streaming from it."""
        server = await self.open(node_id, **how)
        upstream = self.upstream(of)
        await server.data.clone(upstream)
        await server.start(replica=True, upstream=upstream, timeout_ms=START_MS)
        await streams_from(server, of)
        await server.ensure_slots((1, 2, 3), primary=False)
        return server

    def upstream(self, node_id: int) -> Upstream:
        """How others reach a node."""
        return Upstream(node_id=node_id, host="127.0.0.1", port=self.site(node_id).options.port)

    def site(self, node_id: int) -> Site:
        return self.cluster.site(node_id)


async def accepting(server: Instance) -> None:
    """Wait until the server answers SQL."""

    async def answers() -> bool:
        return (await server.probe(timeout_ms=1000)).accepting

    await wait_for_async(answers, READY_S, "the server accepts connections")


async def streams_from(server: Instance, node_id: int) -> None:
    """Wait until the replica streams from the node."""

    async def streams() -> bool:
        return (await server.probe(timeout_ms=1000)).upstream == node_id

    await wait_for_async(streams, READY_S, f"it streams from node {node_id}")


@pytest.fixture(scope="session")
def postgres_root() -> Iterator[PostgresRoot]:
    root = PostgresRoot()
    root.template(None)
    if DEBIAN_BIN.is_dir():
        root.template(DEBIAN_BIN)
    yield root
    root.close()


@pytest.fixture
def bin_dir() -> Path | None:
    """Which programs the servers of a test are made of; parametrize to use others."""
    return None


@pytest.fixture
async def nodes(postgres_root: PostgresRoot, bin_dir: Path | None) -> AsyncIterator[Nodes]:
    cluster = postgres_root.cluster(3, bin_dir=bin_dir)
    async with AsyncExitStack() as stack:
        yield Nodes(cluster, stack)
    cluster.remove()
