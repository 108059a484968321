"""Switchovers asked for in the midst of faults, each in a thread, and what came of them."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from typing import Any

from tools.local_cluster import LocalCluster

ASKED_S = 60.0
UNDER_WAY_MAX = 4
"""As people would: not more at a time than a daemon takes."""
REASON_CHARS_MAX = 90


class Switchovers:
    """Asks by REST, as a person would, whatever state the cluster is in."""

    def __init__(self, cluster: LocalCluster, nodes: tuple[int, ...]) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._threads: list[threading.Thread] = []
        self.outcomes: list[str] = []
        """`done`, or why not."""

    def ask(self, node: int, target: int | None) -> str:
        """Ask `node`'s daemon and do not wait; returns in words what was asked."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) >= UNDER_WAY_MAX:
            return "nothing: enough are under way"
        body = {} if target is None else {"target_node": target}
        thread = threading.Thread(target=self._ask, args=(node, body), daemon=True)
        thread.start()
        self._threads.append(thread)
        return f"asked node {node} for {'any node' if target is None else f'node {target}'}"

    def wait(self) -> None:
        """Until every answer is there, or no longer waited for."""
        for thread in self._threads:
            thread.join(timeout=ASKED_S + 5)

    def counted(self) -> dict[str, int]:
        """How often each outcome, most frequent first."""
        return dict(Counter(self.outcomes).most_common())

    def _ask(self, node: int, body: dict[str, int]) -> None:
        try:
            status, answer = self._cluster.api(
                node, "POST", "/cluster/failover", body, timeout_s=ASKED_S
            )
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.outcomes.append(f"no answer: {type(error).__name__}")
            return
        self.outcomes.append("done" if status == 200 else f"{status} {why(answer)}")


def why(answer: dict[str, Any]) -> str:
    """The code of a refusal, with the obstacles' codes or the message."""
    details = answer.get("details") or {}
    obstacles = details.get("obstacles") or answer.get("obstacles") or []
    codes = sorted({str(one.get("code")) for one in obstacles if isinstance(one, dict)})
    reason = ", ".join(codes) or str(answer.get("message", ""))[:REASON_CHARS_MAX]
    return f"{details.get('error') or answer.get('error', '')}: {reason}"
