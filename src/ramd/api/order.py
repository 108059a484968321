"""What the two threads of the HTTP server say to each other: stop, and that it serves."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Order:
    """One run of the HTTP thread. `stop` may come at any time, also before there is a server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._tell: Callable[[], object] | None = None
        self._call: Callable[[Callable[[], object]], object] | None = None
        self._settled = threading.Event()
        self._served = False

    def attach(
        self,
        tell: Callable[[], object],
        call: Callable[[Callable[[], object]], object] | None = None,
    ) -> None:
        """The HTTP thread names what makes its server stop, called at once if that is wanted, and
        what runs a function in its loop."""
        with self._lock:
            self._tell = tell
            self._call = call
            if self._stopped:
                tell()

    def detach(self) -> None:
        """The server has ended: nobody is told any more."""
        with self._lock:
            self._tell = None
            self._call = None
        self._settled.set()

    def run(self, work: Callable[[], object]) -> bool:
        """Have the HTTP thread run `work` soon, between two of its own steps; False: it does not
        serve."""
        with self._lock:
            if self._call is None:
                return False
            self._call(work)
            return True

    def stop(self) -> None:
        """The server is to stop, now or as soon as there is one."""
        with self._lock:
            self._stopped = True
            if self._tell is not None:
                self._tell()

    def settle(self, *, served: bool) -> None:
        """It is known whether requests are answered."""
        self._served = served
        self._settled.set()

    def served(self, timeout_s: float) -> bool:
        """Whether requests are answered; waits until it is known."""
        return self._settled.wait(timeout_s) and self._served
