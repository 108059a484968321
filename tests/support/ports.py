"""Free TCP ports for servers of tests, not given out twice among the test processes of one user.

Blocks lie below the kernel's range for outgoing connections, so no client socket takes a port
between the moment it is found free and the moment a server binds it. A block is held by a lock on
a file until the process that asked for it ends; the kernel lets go of it even after SIGKILL.
"""

import fcntl
import os
import socket
import tempfile
from pathlib import Path

BLOCK_PORTS = 32
FIRST_PORT = 10_240
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

_held: dict[int, int] = {}
"""First port of each block this process holds → descriptor of its lock."""


def free_port_block(count: int) -> range:
    """`count` consecutive ports on which nothing listens, reserved until this process ends.

    Raises ValueError for a count outside 1 to `BLOCK_PORTS`, RuntimeError when no block is free.
    """
    if not 1 <= count <= BLOCK_PORTS:
        raise ValueError(f"a block has 1 to {BLOCK_PORTS} ports, not {count}")
    bases = range(FIRST_PORT, first_ephemeral_port() - BLOCK_PORTS, BLOCK_PORTS)
    start = os.getpid() % len(bases)  # processes begin at different places and seldom meet
    for base in (*bases[start:], *bases[:start]):
        ports = range(base, base + count)
        if base not in _held and (lock := lock_block(base)) is not None:
            if all(is_free(port) for port in ports):
                _held[base] = lock
                return ports
            os.close(lock)
    raise RuntimeError(f"no {count} consecutive free ports in {bases.start}-{bases.stop}")


def free_port() -> int:
    """One port as by `free_port_block`."""
    return free_port_block(1)[0]


def first_ephemeral_port() -> int:
    """Where the kernel's range for outgoing connections begins."""
    try:
        return int(EPHEMERAL_RANGE.read_text(encoding="ascii").split()[0])
    except FileNotFoundError:
        return 32_768


def lock_block(base: int) -> int | None:
    """The descriptor that holds the block, or None while another process has it."""
    folder = Path(tempfile.gettempdir(), f"ramd-test-ports-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(folder / str(base), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def is_free(port: int) -> bool:
    """Whether a server could bind the port on every IPv4 address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
        return True
