"""A replica that cannot come up because WAL is missing that it needs for it.

Its pages are newer than its WAL (files of it were removed or lost), or it needs to see more of it
before it lets anybody in. Without upstream it would wait for ever: nobody can be asked who does not
answer, and it is not attached before it was judged. Must not live here: what is then done
(`ramd.execute.following`). Start reading at `Hunger`.
"""

from __future__ import annotations

from ramd.execute.work import Work

NS_PER_MS = 1_000_000


class Hunger:
    """Whether one file of WAL has been waited for in vain for `patience_ms`, look after look.

    A server that replays, however slowly, opens one file after the other, and says so; one whose
    disk hangs does not sleep at the end. So time alone never counts. That it was awake at a look in
    between does not matter: it looks for the file again and again, and on a busy host each of those
    moments is long.
    """

    def __init__(self, work: Work, *, patience_ms: int) -> None:
        self._work = work
        self._patience_ns = patience_ms * NS_PER_MS
        self._since_ns = 0
        self.file = ""
        """Waited for at the last look; '' if none was."""
        self.lasts = False
        """So it was at the last look, and it will not change by itself."""

    def look(self) -> bool:
        """`lasts`, looked at anew. Only to be asked while the server accepts no connections: one
        that does, and has no upstream, waits for its next file as well."""
        now_ns, wait = self._work.ports.clock(), self._work.server.waits_for()
        if wait.file != self.file:
            self.file, self._since_ns = wait.file, now_ns
        long = bool(wait.file) and now_ns - self._since_ns >= self._patience_ns
        self.lasts = long and wait.asleep
        return self.lasts
