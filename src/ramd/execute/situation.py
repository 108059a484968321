"""Where the server and its data directory stand right now, looked at freshly.

Lives here: the one classification on which the table of transitions is keyed. Start at `look`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ramd.domain.errors import PostgresError
from ramd.domain.observation import DataKind, ServerRole
from ramd.domain.server import CLEAN, DataDirectory, ServerFacts
from ramd.execute.context import Knowledge, Ports, Situation
from ramd.execute.copies import know_copy
from ramd.execute.local import Unproven


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What `look` found. `facts`: only of a running server. `why`: for people."""

    situation: Situation
    facts: ServerFacts | None = None
    directory: DataDirectory | None = None
    why: str = ""


async def look(ports: Ports, known: Knowledge) -> Seen:
    """Probe a running server, else inspect the directory. Raises PostgresError if neither works.

    A server that somebody else started is taken over first, so that it is judged like any other.

    A running server that does not answer is told by its standby.signal: without one it may write.
    """
    if not ports.server.running:
        # Never beside a running one: its directory stays, and a fence must not wait for our disk.
        await know_copy(ports)
    if ports.server.running or await ports.server.adopt():
        number = ports.server.fence.start_number()
        facts = await ports.server.probe(timeout_ms=ports.timing.probe_ms)
        seen = await _running(ports, facts)
        known.answered = number if seen.situation is Situation.REPLICA else 0
        return seen
    known.forget_server()
    unproven = ports.store.record.unproven
    try:
        directory = await ports.server.data.inspect()
    except PostgresError as error:
        if unproven is Unproven.NO:
            raise
        return Seen(situation=Situation.PARTIAL, why=f"after a rewind: {error.message}")
    situation, why = _stopped(ports, directory)
    return Seen(situation=situation, directory=directory, why=why)


def look_in_page(ports: Ports, known: Knowledge) -> Seen | None:
    """A replica that was found before, and by its page still is one and has not begun anew. None:
    it has to be asked. For whoever needs no facts of it: a failover waits for the answer."""
    number = ports.server.fence.start_number() if ports.server.running else 0
    pulse = ports.server.fence.pulse() if number and number == known.answered else None
    if pulse is None or not pulse.in_recovery:
        return None
    return Seen(situation=Situation.REPLICA)


async def look_briefly(ports: Ports, known: Knowledge) -> Seen:
    """Enough to stop for good a server that was opened for the epoch: whether one runs, and whether
    the directory is still the one that it was opened on, which costs no program.

    Nothing else is asked of either: nobody takes writes while that is waited for.
    """
    if not ports.server.running:
        await know_copy(ports)  # of another directory the release says nothing
    if ports.server.running or await ports.server.adopt():
        return Seen(situation=Situation.PRIMARY)
    known.forget_server()
    return Seen(situation=Situation.CRASHED)


async def _running(ports: Ports, facts: ServerFacts) -> Seen:
    if facts.accepting and facts.role is ServerRole.PRIMARY:
        return Seen(situation=Situation.PRIMARY, facts=facts)
    if facts.accepting and facts.role is ServerRole.REPLICA:
        if ports.store.record.unproven is Unproven.REWOUND:
            # It accepts connections only once it is consistent: that is the proof.
            await ports.store.mark(Unproven.NO)
        return Seen(situation=Situation.REPLICA, facts=facts)
    directory = await ports.server.data.inspect()
    standby = directory.standby_signal
    situation = Situation.STARTING if standby else Situation.PRIMARY
    return Seen(situation=situation, facts=facts, directory=directory, why=facts.refused)


def _stopped(ports: Ports, directory: DataDirectory) -> tuple[Situation, str]:
    if directory.kind is DataKind.ABSENT:
        return Situation.ABSENT, directory.why
    # Before anything else it says of itself: the directory may be half-written, but it is ours.
    unproven = ports.store.record.unproven
    if unproven is Unproven.FOUND:
        return Situation.PARTIAL, "it is older than this node's state, which knows nothing of it"
    if unproven is not Unproven.NO:
        return Situation.PARTIAL, f"the last rewind is not proven ({unproven})"
    if directory.kind is DataKind.FOREIGN:
        return Situation.FOREIGN, directory.why
    if directory.kind is DataKind.PARTIAL:
        return Situation.PARTIAL, directory.why
    system_id = ports.state.system_id
    if system_id and directory.system_id and directory.system_id != system_id:
        why = f"its system id is {directory.system_id}, the cluster's is {system_id}"
        return Situation.FOREIGN, why
    if directory.control_state in CLEAN:
        return Situation.STOPPED, directory.why
    return Situation.CRASHED, directory.why
