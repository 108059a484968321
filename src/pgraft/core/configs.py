"""Which configuration is in effect, and which is committed (thesis §4.1).

Lives here: the configurations that stand in the log, by index. Must not live here: what a
configuration means (see `config`). Start reading at `Configs.effective`.

A configuration is in effect from the moment its entry is appended, and is reverted with it.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgraft.core.types import Config, Index


class Configs:
    """The configurations of a log, oldest first; the first one is committed."""

    def __init__(self, at: Index, config: Config) -> None:
        """`config` is in effect at `at`, the base of the log."""
        self._history: list[tuple[Index, Config]] = [(at, config)]

    @property
    def effective(self) -> Config:
        """The newest one in the log, committed or not."""
        return self._history[-1][1]

    @property
    def since(self) -> Index:
        """Index of the entry that brought the effective one; one that came with a snapshot, or
        whose entry was compacted, counts from the base of the log."""
        return self._history[-1][0]

    def at(self, index: Index) -> tuple[Index, Config]:
        """The one in effect at `index`, not before the base of the log, and since when it was."""
        return next(pair for pair in reversed(self._history) if pair[0] <= index)

    def possible(self, commit: Index) -> Iterator[tuple[Index, Config]]:
        """The one in effect at `commit` and all later ones: the group's is among them, or newer."""
        first, _ = self.at(commit)
        return (pair for pair in self._history if pair[0] >= first)

    def add(self, at: Index, config: Config) -> None:
        """The entry at `at` was appended."""
        self._history.append((at, config))

    def cut(self, first: Index) -> None:
        """Entries from `first` on, none of them committed, are gone."""
        while self._history[-1][0] >= first:
            self._history.pop()

    def compact(self, base: Index) -> None:
        """Entries up to `base` are gone, and committed."""
        while len(self._history) > 1 and self._history[1][0] <= base:
            self._history.pop(0)
