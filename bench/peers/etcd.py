"""Three of Debian's etcd-server without TLS, as Patroni's store: hosts of their own, never harmed.

Start reading at `Store`.
"""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from typing import Final

from bench.consensus.groups import MEMBERS, READY_S, EtcdGroup, GroupError, GroupOptions

HEARTBEAT_MS: Final = 100
ELECTION_MS: Final = 1000
ASK_S: Final = 0.1


class Store(EtcdGroup):
    """etcd at its default timing, in a directory that is made."""

    def __init__(self, directory: Path, etcd: str) -> None:
        options = GroupOptions(
            directory=directory, files=None, heartbeat_ms=HEARTBEAT_MS, election_ms=ELECTION_MS
        )
        super().__init__(options, etcd)

    def hosts(self) -> list[str]:
        """Where its clients ask."""
        return [f"127.0.0.1:{port}" for port in self.client_ports.values()]

    def healthy(self) -> int:
        """Wait until every member says that there is a leader; returns a member."""
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            if all(_serves(self.client_ports[member]) for member in MEMBERS):
                return MEMBERS[0]
            time.sleep(ASK_S)
        raise GroupError(f"{self.name}: not healthy within {READY_S:g} s")


def _serves(port: int) -> bool:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        link.request("GET", "/health")
        return bool(json.loads(link.getresponse().read()).get("health") == "true")
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        link.close()
