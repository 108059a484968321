"""The driver's own order of things, seen by a core that only takes notes."""

import asyncio
import random
from pathlib import Path
from typing import cast

from pgraft.core.raft import Raft
from pgraft.core.types import (
    CoreEvent,
    Entry,
    EventKind,
    HardState,
    Heartbeat,
    HeartbeatReply,
    Index,
    Nanos,
    NodeId,
    Outgoing,
    Ready,
    Release,
    Term,
)
from pgraft.identity import Founder, Identity
from pgraft.net.memory import MemoryNetwork, MemoryTransport
from pgraft.node.counts import PAUSE_NS
from pgraft.node.driver import INBOX_MAX, INPUTS_MAX, Driver, DriverEvents, boottime_ns
from pgraft.storage import wal
from pgraft.storage.disk import OsDisk
from pgraft.storage.replay import recover
from pgraft.storage.segment import Owner
from pgraft.wire import CONTROL_BYTES_MAX, Frame, WireError
from tests.support.wait import wait_for_async

BEAT = Heartbeat(term=Term(1), commit=Index(0), round=1)
OWNER = Owner(cluster_id="c" * 32, node=1, uuid="a" * 32)


class Notes:
    """A core that is always due and never has anything to do."""

    def __init__(self, calls: list[str], fail: str = "") -> None:
        self.calls = calls
        self.fail = fail
        self.due_ns: Nanos = 0

    def _note(self, what: str) -> None:
        self.calls.append(what)
        if what == self.fail:
            raise RuntimeError(f"a bug in {what}")

    def step(self, sender: NodeId, message: object, now: Nanos) -> None:
        self._note("step")

    def tick(self, now: Nanos) -> None:
        self._note("tick")
        self.due_ns = now + 60_000_000_000

    def link(self, peer: NodeId, up: bool, now: Nanos) -> None:
        self._note("link")

    def ready(self) -> None:
        self._note("ready")

    def next_deadline(self) -> Nanos:
        return self.due_ns


class Peers(MemoryTransport):
    """A transport with a connection to node 2 and to nobody else."""

    def send(self, to: NodeId, frame: Frame) -> bool:
        super().send(to, frame)
        return to == 2


def driver_of(notes: Notes, directory: Path, failures: list[BaseException]) -> Driver:
    disk = OsDisk(directory)
    wal.create(disk, OWNER)
    log, _ = recover(disk, OWNER)
    founders = (Founder(node=NodeId(1), address="h:1"),)
    identity = Identity(node=NodeId(1), uuid="a" * 32, cluster_name="test", founders=founders)

    def apply(entry: Entry) -> None:
        raise AssertionError("nothing is committed here")

    return Driver(
        cast(Raft, notes),
        log,
        Peers(MemoryNetwork(random.Random(0)), identity),
        DriverEvents(
            apply=apply,
            read=lambda _: None,
            event=lambda _: None,
            failed=failures.append,
            restore=lambda _: None,
        ),
        clock=boottime_ns,
        beat_ns=60_000_000_000,
    )


async def test_after_a_pause_what_came_meanwhile_is_heard_before_time_is_told(
    tmp_path: Path,
) -> None:
    notes = Notes([])
    driver = driver_of(notes, tmp_path, [])
    notes.due_ns = boottime_ns() + 60_000_000_000
    driver.start()
    await wait_for_async(lambda: notes.calls == ["ready"], 5, "the driver waits for its timer")
    notes.due_ns = 0
    driver.on_timer(PAUSE_NS + 1)
    asyncio.get_running_loop().call_soon(driver.on_message, NodeId(2), BEAT)
    await wait_for_async(lambda: "tick" in notes.calls, 5, "time is told in the end")
    assert notes.calls.index("step") < notes.calls.index("tick")
    assert driver.lag.max_ns > PAUSE_NS
    await driver.stop()


async def test_a_fault_of_the_core_at_any_input_stops_the_driver_for_good(tmp_path: Path) -> None:
    for fail in ("step", "link", "tick", "ready"):
        failures: list[BaseException] = []
        notes = Notes([], fail)
        (tmp_path / fail).mkdir()
        driver = driver_of(notes, tmp_path / fail, failures)
        driver.start()
        driver.on_message(NodeId(2), BEAT)
        driver.on_link(NodeId(2), False)
        await wait_for_async(lambda: failures, 5, f"the fault in {fail} is told")  # noqa: B023
        seen = list(notes.calls)
        driver.on_message(NodeId(2), BEAT)
        driver.wake()
        driver.on_timer(0)
        await driver.stop()
        assert notes.calls == seen, "nothing is asked of the core any more"
        assert [str(error) for error in failures] == [f"a bug in {fail}"]


class OneReady(Notes):
    """A core with one thing to write, and one message that waits for it."""

    def __init__(self, ready: Ready) -> None:
        super().__init__([])
        self.readies = [ready]

    def ready(self) -> Ready | None:  # type: ignore[override]
        return self.readies.pop() if self.readies else None

    def persisted(self, token: int, now: Nanos) -> None:
        self._note("persisted")


async def test_a_fault_in_sending_what_waited_for_a_sync_is_told_too(tmp_path: Path) -> None:
    too_long = Release(epoch=1, boot=1, sent_at_ns=1, evidence=bytes(CONTROL_BYTES_MAX))
    notes = OneReady(
        Ready(
            token=1,
            hard_state=HardState(term=Term(1)),
            send_after_sync=(Outgoing(to=NodeId(2), message=too_long),),
        )
    )
    failures: list[BaseException] = []
    driver = driver_of(notes, tmp_path, failures)
    driver.start()
    await wait_for_async(lambda: failures, 5, "the fault is told")
    assert isinstance(failures[0], WireError)
    assert not driver.running
    await driver.stop()


async def test_a_flood_of_messages_is_taken_in_turns_and_in_order(tmp_path: Path) -> None:
    notes = Order()
    driver = driver_of(notes, tmp_path, [])
    driver.start()
    await wait_for_async(lambda: notes.calls, 5, "the driver runs")
    for number in range(INPUTS_MAX + INBOX_MAX + 10):
        driver.on_message(NodeId(2), HeartbeatReply(term=Term(1), round=number))
    assert len(notes.rounds) == INPUTS_MAX, "the rest waits for its turn"
    taken = INPUTS_MAX + INBOX_MAX
    await wait_for_async(lambda: len(notes.rounds) == taken, 5, "all turns are over")
    assert notes.rounds == list(range(taken))
    assert driver.counts.messages_dropped == 10
    driver.on_message(NodeId(2), HeartbeatReply(term=Term(1), round=taken))
    await wait_for_async(lambda: notes.rounds[-1] == taken, 5, "and it goes on")
    await driver.stop()


class Order(Notes):
    """A core that remembers the rounds it was told of."""

    def __init__(self) -> None:
        super().__init__([])
        self.due_ns = boottime_ns() + 60_000_000_000
        self.rounds: list[int] = []

    def step(self, sender: NodeId, message: object, now: Nanos) -> None:
        assert isinstance(message, HeartbeatReply)
        self.rounds.append(message.round)


async def test_only_what_was_done_is_counted(tmp_path: Path) -> None:
    beats = tuple(Outgoing(to=NodeId(node), message=BEAT) for node in (2, 2, 3))
    other = Outgoing(to=NodeId(2), message=HeartbeatReply(term=Term(1), round=1))
    events = tuple(CoreEvent(kind=kind, term=Term(1)) for kind in EventKind)
    notes = OneReady(Ready(send_now=(*beats, other), events=events))
    driver = driver_of(notes, tmp_path, [])
    driver.on_message(NodeId(2), BEAT)
    driver.start()
    await wait_for_async(lambda: not notes.readies, 5, "the core is asked what it has to send")
    driver.on_message(NodeId(2), BEAT)
    counts = driver.counts
    assert counts.heartbeats_sent == 2, "two were taken, the third had no connection"
    assert counts.elections_begun == 1, "one event of all kinds is about an election"
    assert counts.messages_taken == 1, "one came before the start, and nobody heard it"
    notes.fail = "step"
    driver.on_message(NodeId(2), BEAT)
    assert counts.messages_taken == 1, "the core has failed at it"
    await driver.stop()
