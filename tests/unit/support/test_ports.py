"""tests.support.ports: blocks never overlap, in one process or two, and nobody listens there."""

import socket
import subprocess
import sys

import pytest

from tests.support import ports


def test_blocks_are_consecutive_disjoint_and_not_ephemeral() -> None:
    first, second = ports.free_port_block(5), ports.free_port_block(7)
    assert (len(first), len(second)) == (5, 7)
    assert not set(first) & set(second)
    assert max(*first, *second) < ports.first_ephemeral_port()


def test_a_port_somebody_listens_on_is_not_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", ports.free_port()))
        server.listen()
        assert not ports.is_free(server.getsockname()[1])


def test_a_block_held_here_is_not_given_to_another_process() -> None:
    base = ports.free_port_block(1)[0]
    code = f"from tests.support import ports; print(ports.lock_block({base}))"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert other.stdout.strip() == "None"


@pytest.mark.parametrize("count", [0, ports.BLOCK_PORTS + 1])
def test_a_count_that_fits_no_block_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=str(count)):
        ports.free_port_block(count)
