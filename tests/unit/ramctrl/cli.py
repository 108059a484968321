"""Runs one command line in this process and keeps what it printed."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ramctrl.__main__ import run


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command line ended with."""

    code: int
    out: str
    err: str


def ramctrl(*arguments: str) -> Ran:
    """The outcome of `ramctrl <arguments>`; standard input is no terminal."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(arguments)
    return Ran(code=code, out=out.getvalue(), err=err.getvalue())


@contextlib.contextmanager
def frozen_time(monkeypatch: pytest.MonkeyPatch, now_s: float) -> Iterator[None]:
    """`time.time()` as ramctrl's pages see it."""
    with monkeypatch.context() as patch:
        patch.setattr("ramctrl.cluster.time.time", lambda: now_s)
        yield
