"""Work handed to processes that end with the one that began them, however that ends.

Lives here: the pool that `raft_runner` and `ha_runner` share. Must not live here: what is done in
it. Start reading at `in_processes`.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Task], Result],
    tasks: Iterator[Task],
    jobs: int,
    more: Callable[[], bool] = lambda: True,
) -> Iterator[Result]:
    """`work` of each task, as it comes; no task is begun any more once `more()` is false."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=end_with_parent) as pool:
        running: set[Future[Result]] = set()
        while True:
            while len(running) < jobs and more():
                task = next(tasks, None)
                if task is None:
                    break
                running.add(pool.submit(work, task))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def end_with_parent() -> None:
    """This process ends at once when its parent does. A pool's workers would wait for ever for
    the next task of a parent that was killed: the pipe is open in each of them."""
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
