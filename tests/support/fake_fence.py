"""A server's fence in memory: the word, the latch, and which start of the server runs."""

from __future__ import annotations

from ramd.domain.fence import FenceCounts, NoFence, Pulse


class FakeFence(NoFence):
    """Bound from the beginning to start 1. `journal` holds every store in order."""

    def __init__(self) -> None:
        self.number = 1
        self.word = (0, 0)
        """Deadline and start number."""
        self.latched = 0
        self.seen: Pulse | None = None
        self.counted = FenceCounts()
        self.journal: list[str] = []

    @property
    def guards(self) -> bool:
        return self.number != 0

    def start_number(self) -> int:
        return self.number

    def publish(self, deadline_ns: int, start_number: int) -> None:
        if self.word != (deadline_ns, start_number):
            self.journal.append("publish")
        self.word = (deadline_ns, start_number)

    def shut(self, epoch: int) -> None:
        self.latched = max(self.latched, epoch)
        self.word = (0, 0)
        self.journal.append(f"shut {epoch}")

    def pulse(self) -> Pulse | None:
        return self.seen

    def counts(self) -> FenceCounts:
        return self.counted

    def open(self, now_ns: int) -> bool:
        """Whether the server that runs now would acknowledge a write."""
        deadline_ns, start = self.word
        return start == self.number and now_ns < deadline_ns
