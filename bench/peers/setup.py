"""Patroni in its own environment below `.cache`, world-readable: its server's user runs it.

Made with Debian's Python, not the project's, which may lie in a home that nobody else can enter.
Start reading at `install_patroni`.
"""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path
from typing import Final

from bench.consensus.setup import SetupError, run

CACHE: Final = Path(__file__).resolve().parents[2] / ".cache" / "bench-patroni"
PACKAGES: Final = ("patroni[etcd3]", "psycopg[binary]")
SYSTEM_PYTHON: Final = Path("/usr/bin/python3")


def install_patroni() -> Path:
    """The directory of `python` and `patroni`; who comes while another process makes it waits.
    Raises SetupError."""
    marker = CACHE / "complete"
    CACHE.parent.mkdir(exist_ok=True)
    with CACHE.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.exists():
            _make(marker)
    return CACHE / "bin"


def _make(marker: Path) -> None:
    if not SYSTEM_PYTHON.exists():
        raise SetupError(f"there is no {SYSTEM_PYTHON}, which Patroni's environment is made of")
    run([str(SYSTEM_PYTHON), "-m", "venv", "--clear", str(CACHE)])
    run([str(CACHE / "bin" / "python"), "-m", "pip", "-q", "install", *PACKAGES])
    run(["chmod", "-R", "a+rX", str(CACHE)])
    marker.touch()


def patroni_version(bin_dir: Path) -> str:
    """`4.1.5`."""
    command = [str(bin_dir / "python"), str(bin_dir / "patroni"), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    return done.stdout.split()[-1]
