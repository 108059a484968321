"""Clusters for the stories of a file: made when asked for, ended and removed after its last one."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.support.cluster_stories import Clusters
from tools.local_cluster import LocalCluster

OPEN: list[Clusters] = []


@pytest.fixture(scope="module")
def clusters() -> Iterator[Clusters]:
    """Where a story gets clusters of its own."""
    made = Clusters()
    OPEN.append(made)
    yield made
    OPEN.remove(made)
    made.close()


@pytest.fixture(scope="module")
def cluster(clusters: Clusters) -> LocalCluster:
    """Three nodes, healthy, shared by the stories of a file."""
    return clusters.three_nodes()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, object, None]:
    """What the daemons said last stands in the report of a failed story."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        for made in OPEN:
            report.sections.append(("the daemons' last words", made.last_words()))
