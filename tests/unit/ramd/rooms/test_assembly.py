"""What a start that is given up half-way leaves behind: nothing that is in use."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from ramd import assembly


class Page:
    """Stands for the fence: remembers whether it was given back."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


async def test_a_fence_opened_by_a_start_that_was_given_up_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page, begun, go_on = Page(), threading.Event(), threading.Event()

    def open_fence(_wanted: Any) -> tuple[Page, None]:
        begun.set()
        assert go_on.wait(10)
        return page, None

    monkeypatch.setattr(assembly, "open_fence", open_fence)
    wanted: Any = object()
    opening = asyncio.ensure_future(assembly._open_fence(wanted))
    assert await asyncio.to_thread(begun.wait, 10)
    opening.cancel()
    await asyncio.wait({opening}, timeout=0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert page.closed


async def test_a_fence_that_could_not_be_opened_does_not_hide_the_giving_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def open_fence(_wanted: Any) -> tuple[Page, None]:
        begun.set()
        assert go_on.wait(10)
        raise OSError("no page")

    monkeypatch.setattr(assembly, "open_fence", open_fence)
    wanted: Any = object()
    opening = asyncio.ensure_future(assembly._open_fence(wanted))
    assert await asyncio.to_thread(begun.wait, 10)
    opening.cancel()
    await asyncio.wait({opening}, timeout=0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
