"""The end of a cluster on this node, of this node in its cluster, and the transition that does
nothing."""

from __future__ import annotations

from ramd import events
from ramd.domain.decision import Leave, Wait
from ramd.domain.server import StopMode
from ramd.execute.context import Step
from ramd.execute.leading import retire, set_aside
from ramd.execute.work import Work


async def nothing(work: Work) -> Step:
    """The goal asks nothing of a server that stands like this; one that waits says for what, and
    one that cannot do its part says why."""
    work.say(work.goal.reason if isinstance(work.goal, Wait) else work.seen.why)
    return Step.DONE


async def leave_running(work: Work) -> Step:
    """Stop cleanly; whatever was led here is led no more."""
    work.say("stopping: the cluster is removed")
    await work.server.stop(StopMode.FAST, timeout_ms=work.timing.yield_stop_ms)
    await work.server.data.kill_remains(timeout_ms=work.timing.kill_ms)
    work.guard.rest()
    work.known.forget_server()
    work.ports.changed()
    return Step.AGAIN


async def leave_stopped(work: Work) -> Step:
    """Rename the directory aside, or delete it because a person asked for that by name."""
    goal = work.goal
    assert isinstance(goal, Leave)
    if not goal.remove_data:
        return await set_aside(work, "the cluster was removed")
    work.say("removing the data directory, as asked")
    await work.server.data.kill_remains(timeout_ms=work.timing.kill_ms)
    await work.server.data.remove_data()
    events.emit(events.DataRemoved(path=str(work.server.data.path)))
    return Step.AGAIN


async def leave_done(work: Work) -> Step:
    """No server and nothing of ours is left: this node forgets what it was."""
    work.guard.rest()
    await work.ports.store.forget()
    work.say("left the cluster")
    return Step.DONE


# --- Withdraw: this node was removed ---------------------------------------------------------


async def withdraw_running(work: Work) -> Step:
    """Stop a server that has no group any more; what it holds stays."""
    work.say("stopping: this node was removed from its cluster")
    await work.server.stop(StopMode.FAST, timeout_ms=work.timing.stop_ms)
    await work.server.data.kill_remains(timeout_ms=work.timing.kill_ms)
    work.guard.rest()
    work.known.forget_server()
    work.ports.changed()
    return Step.AGAIN


async def withdraw_primary(work: Work) -> Step:
    """One that could write is fenced first and stopped at once: another one leads by now."""
    work.say("stopping a primary that was removed from its cluster")
    await retire(work)
    return Step.AGAIN


async def withdraw_done(work: Work) -> Step:
    """No server runs; the data directory stays as it is."""
    work.guard.rest()
    work.say("removed from the cluster: the server is stopped, its data are untouched")
    return Step.DONE
