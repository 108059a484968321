"""What the comparison needs and the project does not: etcd, gRPC for Python, certificates.

Lives here: finding or making them, below `.cache` or the run's own directory. Must not live here:
what is measured. Start reading at `prepare`.
"""

from __future__ import annotations

import importlib
import os
import shutil
import site
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CACHE: Final = Path(__file__).resolve().parents[2] / ".cache" / "bench-consensus"
PACKAGES: Final = ("grpcio", "trustme")
INSTALL_TIMEOUT_S: Final = 600


class SetupError(Exception):
    """Something needed is missing and could not be had; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """One certificate for everybody on this host, client and server, and who signed it."""

    cert: Path
    key: Path
    ca: Path


def prepare() -> str:
    """See to etcd and the packages; returns the path of etcd. Raises SetupError."""
    _packages()
    return find_etcd()


def package(name: str) -> Any:
    """A module of the bench's own environment. Only after `prepare`."""
    return importlib.import_module(name)


def versions(etcd: str) -> dict[str, str]:
    """Of what is compared, and of the client's library."""
    return {"etcd": etcd_version(etcd), "grpcio": package("grpc").__version__}


def etcd_version(etcd: str) -> str:
    """`3.4.23`."""
    said = subprocess.run([etcd, "--version"], capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0].split()[-1]


def make_certificates(directory: Path) -> Files:
    """ECDSA P-256, for 127.0.0.1, signed by an authority made for this run."""
    trustme = package("trustme")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files = Files(cert=directory / "tls.crt", key=directory / "tls.key", ca=directory / "ca.crt")
    files.key.touch(mode=0o600)
    issued.private_key_pem.write_to_path(str(files.key))
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(str(files.cert), append=number > 0)
    authority.cert_pem.write_to_path(str(files.ca))
    return files


def _packages() -> None:
    python = CACHE / "bin" / "python"
    marker = CACHE / "complete"
    if not marker.exists():
        # Its own environment: nothing of it is ever seen by the project or its members.
        run([sys.executable, "-m", "venv", "--clear", str(CACHE)])
        run([str(python), "-m", "pip", "-q", "install", *PACKAGES])
        marker.touch()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site.addsitedir(str(CACHE / "lib" / version / "site-packages"))
    for name in ("grpc", "trustme"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise SetupError(f"remove {CACHE} and try again: {error}") from error


def find_etcd() -> str:
    """The path of etcd; root installs Debian's if there is none. Raises SetupError."""
    found = shutil.which("etcd")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get") is not None:
        run(["apt-get", "-q", "update"])
        run(["apt-get", "-q", "install", "-y", "--no-install-recommends", "etcd-server"])
        found = shutil.which("etcd")
    if found is None:
        raise SetupError("there is no etcd here: install Debian's etcd-server, or run as root")
    return found


def run(command: list[str]) -> None:
    """Raises SetupError with what it said if it fails."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise SetupError(f"{' '.join(command)} failed: {done.stdout[-2000:]}")
