"""A group made anew in a running daemon: entered again whatever happens, or the daemon ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramd.config.load import load_text
from ramd.domain.errors import Refused, Unavailable
from ramd.domain.model import Member
from ramd.domain.service import Stage
from ramd.host import Daemon, Host


class Rehearsed(Host):
    """A host whose memberships are names; `steps` is what was done, in order."""

    def __init__(self, tmp_path: Path) -> None:
        self.steps: list[str] = []
        self.stopped: list[str] = []
        self.refuses: Exception | None = None
        config = load_text(f"postgresql_data_dir = {tmp_path}/data\n", {})
        super().__init__(Daemon(config=config, version="0", started_ns=0, stop=self.stopped.append))
        self._phase.secret_file = tmp_path / "secret"

    async def enter(self, members: tuple[Member, ...], secret_file: Path) -> None:
        assert self.picture.daemon.stage is Stage.CLUSTERLESS
        self.steps.append(f"enter {len(members)} {secret_file.name}")
        if self.refuses is not None:
            raise self.refuses

    async def end(self) -> None:
        self.steps.append("end")

    def work(self) -> str:
        assert self.picture.daemon.stage is Stage.FORMING
        self.steps.append("work")
        return "done"

    def fails(self) -> str:
        raise Refused("the log cannot be read")


async def test_left_changed_and_entered_again(tmp_path: Path) -> None:
    host = Rehearsed(tmp_path)
    assert await host.reform(host.work) == "done"
    assert host.steps == ["end", "work", "enter 0 secret"]
    assert host.stopped == []


async def test_work_that_fails_leaves_the_group_entered_as_it_was(tmp_path: Path) -> None:
    host = Rehearsed(tmp_path)
    with pytest.raises(Refused, match="cannot be read"):
        await host.reform(host.fails)
    assert host.steps == ["end", "enter 0 secret"]
    assert host.stopped == []


async def test_no_way_back_ends_the_daemon(tmp_path: Path) -> None:
    host = Rehearsed(tmp_path)
    host.refuses = Unavailable("the port is taken")
    with pytest.raises(Unavailable):
        await host.reform(host.work)
    assert host.stopped == ["its group cannot be entered again"]
