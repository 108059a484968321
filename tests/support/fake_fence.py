"""The fence inside a `FakeServer`: the page in memory, and the rule that the server goes by.

`FakePage` outlives the daemon, as the real one does. Start reading at `acknowledges`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ramd.domain.consensus import GroupStatus
from ramd.domain.fence import Fence, FenceCounts, Pulse
from ramd.domain.model import ClusterState
from tests.support.fake_server import FakeServer
from tests.support.virtual_time import clock_ns


@dataclass(slots=True)
class FakePage:
    """What server and daemon tell each other."""

    deadline_ns: int = 0
    lease_start: int = 0
    """With the deadline: the lease word."""
    latched: int = 0
    beats: int = 0
    drain_at_ns: int = 0
    pid: int = 0
    start: int = 0
    """The server's own words: whose start it was, and which."""

    @property
    def word(self) -> tuple[int, int]:
        return (self.deadline_ns, self.lease_start)

    def begin(self, pid: int) -> None:
        """A server starts, or begins anew after a crash of one of its processes."""
        self.deadline_ns = self.lease_start = 0
        self.pid = pid
        self.start += 1


class FakeFence(Fence):
    """See Fence. Attached to `server`, bound if it runs already. With `loads=False` the server runs
    without the extension. `published` holds (deadline ns, start number) in order; `shut` is in the
    server's own journal. `latest` and `counted` are what the server would say."""

    def __init__(self, server: FakeServer, *, loads: bool = True) -> None:
        self.page = FakePage()
        self.loads = loads
        self.published: list[tuple[int, int]] = []
        self.latest: Pulse | None = None
        self.speaks: Callable[[], Pulse | None] = lambda: self.latest
        self.counted = FenceCounts()
        self._server = server
        self._bound = 0
        server.inside = self
        if server.process is not None:
            self.bind(server.process.pid)

    @property
    def guards(self) -> bool:
        return self._bound != 0

    def prepare(self) -> None:
        return

    def bind(self, postmaster_pid: int) -> bool:
        if self.loads and self.page.pid != postmaster_pid:
            self.page.begin(postmaster_pid)
        self._bound = postmaster_pid if self.loads else 0
        return self.guards

    def unbind(self) -> None:
        self._bound = 0

    def start_number(self) -> int:
        return self.page.start if self._bound and self._bound == self.page.pid else 0

    def publish(self, deadline_ns: int, start_number: int) -> None:
        self.published.append((deadline_ns, start_number))
        self.page.drain_at_ns = 0
        self.page.deadline_ns, self.page.lease_start = deadline_ns, start_number

    def shut(self, epoch: int, *, drain_at_ns: int = 0) -> None:
        self.page.drain_at_ns = drain_at_ns
        self.page.latched = max(self.page.latched, epoch)
        self.page.deadline_ns = self.page.lease_start = 0
        self._server.calls.append(f"shut {epoch}")

    def pulse(self) -> Pulse | None:
        return self.speaks() if self._bound else None

    def counts(self) -> FenceCounts:
        return self.counted

    def tell(
        self, status: GroupStatus, state: ClusterState, heard: Collection[int], now_ns: int
    ) -> None:
        self.beat(now_ns)

    def beat(self, now_ns: int) -> None:
        self.page.beats += 1

    def close(self) -> None:
        return


def acknowledges(server: FakeServer) -> bool:
    """The server confirms a commit now: a primary whose lease word is of this very start of it and
    not over; without the extension any primary."""
    if not server.accepting or not server.primary:
        return False
    fence = server.fence
    if not isinstance(fence, FakeFence) or not fence.loads:
        return True
    page = fence.page
    return page.lease_start == page.start and clock_ns() < page.deadline_ns


def crash_cycle(server: FakeServer, *, recovers_s: float = 0.5) -> None:
    """A backend crashed: the postmaster lives, ends all others and recovers."""
    fence, process = server.fence, server.process
    assert process is not None
    if isinstance(fence, FakeFence) and fence.loads:
        fence.page.begin(process.pid)
    process.accepts_at = clock_ns() / 1e9 + recovers_s
