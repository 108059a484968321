"""Servers with the library loaded. `flavour` is each major version at hand in turn.

`pytest tests/extension --rewrite` writes what the scripts in sql/ print now.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.extension_lab import FLAVOURS, Flavour, Lab, LabServer


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@pytest.fixture(scope="module", params=FLAVOURS, ids=lambda flavour: f"pg{flavour.major}")
def flavour(request: pytest.FixtureRequest) -> Flavour:
    found: Flavour = request.param
    if found.missing:
        pytest.skip(found.missing)
    return found


@pytest.fixture(scope="module")
def shared(lab: Lab, flavour: Flavour) -> Iterator[LabServer]:
    """One running server for all tests of a file; see `server`."""
    made = lab.server(flavour, synchronous_standby_names="").start(leased=True)
    yield made
    made.stop()


@pytest.fixture
def server(shared: LabServer) -> LabServer:
    """A running server that holds a lease, and has had other tests before."""
    shared.lease()
    return shared


@pytest.fixture
def fresh(lab: Lab, flavour: Flavour) -> Iterator[LabServer]:
    """A server of this test alone, not started."""
    made = lab.server(flavour)
    yield made
    made.stop()
