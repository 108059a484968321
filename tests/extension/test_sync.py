"""The synchronous set inside the server: who has loaded it, who may not pass it by."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.extension.held import UNHELD, Held, hold_commits
from tests.support.extension_lab import Flavour, Lab, LabServer
from tests.support.raw_client import RawClient
from tests.support.wait import wait_for

SOON_S = 30.0
SLOT = "SELECT pg_create_physical_replication_slot('{0}', true)"


@pytest.fixture
def held(server: LabServer) -> Iterator[Held]:
    server.ask("CREATE TABLE IF NOT EXISTS kept (n int)")
    with hold_commits(server) as held:
        yield held


class Pair:
    """A primary and its replicas by name, each through a slot of its own."""

    def __init__(self, lab: Lab, flavour: Flavour) -> None:
        self.lab = lab
        self.primary = lab.server(flavour, synchronous_standby_names="").start(leased=True)
        self.replicas: dict[str, LabServer] = {}
        self.primary.ask("CREATE TABLE written (n int)")

    def replica(self, name: str, *, slot: str = "") -> LabServer:
        """One that streams as `name`; without `slot` through none."""
        made = self.lab.replica(self.primary)
        auto = made.site.data_dir / "postgresql.auto.conf"
        info = (
            f"host={self.primary.site.socket_dir} port={self.primary.site.options.port}"
            f" user=postgres application_name={name}"
        )
        auto.write_text(f"primary_conninfo = '{info}'\nprimary_slot_name = '{slot}'\n")
        made.settings |= {
            "wal_receiver_status_interval": "1",
            "wal_retrieve_retry_interval": "100ms",
        }
        if slot:
            self.primary.ask(SLOT.format(slot))
        self.replicas[name] = made
        return made.start()

    def set(self, names: str, generation: int) -> None:
        """The server is told; who has loaded it is another question."""
        self.primary.settings["synchronous_standby_names"] = names
        self.primary.settings.pop("pgraft.sync_generation", None)
        self.primary.settings["pgraft.sync_generation"] = str(generation)
        self.primary.configure()
        os.kill(self.primary.pid, signal.SIGHUP)

    def loaded(self, generation: int) -> bool:
        return self.primary.pulse().sync_generation == generation

    def until_streaming(self, count: int) -> None:
        def streaming() -> bool:
            sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
            return bool(self.primary.ask(sql) == count)

        wait_for(streaming, SOON_S, f"{count} replicas stream")

    def sender(self, name: str) -> int:
        pid = self.primary.ask(
            f"SELECT pid FROM pg_stat_replication WHERE application_name = '{name}'"
        )
        assert isinstance(pid, int)
        return pid

    def close(self) -> None:
        self.primary.settings["synchronous_standby_names"] = ""
        self.primary.configure()
        os.kill(self.primary.pid, signal.SIGHUP)
        for replica in self.replicas.values():
            replica.stop()
        self.primary.stop()


@pytest.fixture
def pair(lab: Lab, flavour: Flavour) -> Iterator[Pair]:
    made = Pair(lab, flavour)
    try:
        yield made
    finally:
        made.close()


def test_a_stopped_walsender_keeps_a_change_unproven(pair: Pair) -> None:
    """It would go on releasing commits by the old number; no view of PostgreSQL's shows that."""
    pair.replica("b", slot="b")
    pair.replica("c", slot="c")
    pair.until_streaming(2)
    pair.set("ANY 1 (b, c)", 7)
    wait_for(lambda: pair.loaded(7), SOON_S, "all have the first")
    assert pair.primary.pulse().sync_defined
    stopped = pair.sender("c")
    os.kill(stopped, signal.SIGSTOP)
    try:
        pair.set("ANY 2 (b, c)", 8)
        names = "SHOW synchronous_standby_names"
        wait_for(lambda: pair.primary.ask(names) == "ANY 2 (b, c)", SOON_S, "sessions have it")
        ticks = pair.primary.pulse().ticks
        wait_for(lambda: pair.primary.pulse().ticks > ticks + 20, SOON_S, "the worker goes on")
        assert pair.loaded(7)
        with RawClient(pair.primary.site) as client:
            client.query("INSERT INTO written VALUES (1)")
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            wait_for(lambda: pair.primary.ask(waits) == 1, SOON_S, "a commit waits for both")
            assert not client.answers()
            os.kill(stopped, signal.SIGCONT)
            assert [m.kind for m in client.until_ready()] == ["C", "Z"]
    finally:
        os.kill(stopped, signal.SIGCONT)
    wait_for(lambda: pair.loaded(8), SOON_S, "it has it, too")


def test_a_walsender_that_comes_later_has_what_it_was_forked_with(pair: Pair) -> None:
    pair.set("ANY 1 (b)", 3)
    wait_for(lambda: pair.loaded(3), SOON_S, "the checkpointer has it")
    pair.replica("b", slot="b")
    pair.until_streaming(1)
    ticks = pair.primary.pulse().ticks
    wait_for(lambda: pair.primary.pulse().ticks > ticks + 2, SOON_S, "it was looked at")
    assert pair.loaded(3)
    pair.primary.ask("INSERT INTO written VALUES (1)")


def test_a_restarted_server_has_what_it_was_started_with(pair: Pair) -> None:
    pair.set("", 5)
    pair.primary.stop()
    pair.primary.start(leased=True)
    assert pair.loaded(5)
    assert not pair.primary.pulse().sync_defined
    pair.set("ANY 1 (b)", 6)
    wait_for(lambda: pair.loaded(6), SOON_S, "the change is loaded")
    wait_for(lambda: pair.primary.pulse().sync_defined, SOON_S, "and commits wait")


def test_a_second_stream_of_a_name_releases_nobody(pair: Pair) -> None:
    """ANY 2 (b, c), c is down: b twice is not two replicas (attacks C7)."""
    pair.replica("b", slot="b")
    pair.until_streaming(1)
    pair.set("ANY 2 (b, c)", 2)
    wait_for(lambda: pair.loaded(2), SOON_S, "all have it")
    with RawClient(pair.primary.site) as client:
        client.query("INSERT INTO written VALUES (1)")
        pretender = pair.lab.replica(pair.primary)
        auto = pretender.site.data_dir / "postgresql.auto.conf"
        # The very settings of b, as a copy of its directory would have them.
        auto.write_text((pair.replicas["b"].site.data_dir / "postgresql.auto.conf").read_text())
        pretender.start()
        pair.replicas["pretender"] = pretender
        wait_for(lambda: 'slot "b" is active' in pretender.log(), SOON_S, "it is turned away")
        assert not client.answers()
        # Without a slot it is turned away as well, and not counted for a moment.
        told = '" may stream only through its own replication slot'
        auto.write_text(auto.read_text().replace("primary_slot_name = 'b'", ""))
        os.kill(pretender.pid, signal.SIGHUP)
        wait_for(lambda: told in pretender.log(), SOON_S, "it is turned away again")
        assert not client.answers()
        pretender.stop()
        pair.replica("c", slot="c")
        assert [m.kind for m in client.until_ready()] == ["C", "Z"]


@pytest.mark.parametrize("slot", ["", "ramd_node_3", "backup"])
def test_a_member_is_not_streamed_for_without_its_slot(pair: Pair, slot: str) -> None:
    """Not for a moment, whatever the case of its name, and also before there is a set."""
    pretender = pair.replica("RAMD_node_2_00000000000000aa", slot=slot)
    why = "may stream only through its own replication slot"
    wait_for(lambda: why in pretender.log(), SOON_S, "it is turned away")
    assert "streaming WAL" not in pretender.log()


def test_what_is_confirmed_through_a_slot_is_its_members_only_under_its_name(pair: Pair) -> None:
    """A switchover goes by it: an archiver on the slot of a member has not what that holds."""
    pair.replica("archiver", slot="ramd_node_1")
    pair.replica("ramd_node_2", slot="ramd_node_2")
    pair.replica("ramd_node_3_00000000000000aa", slot="ramd_node_3")
    pair.until_streaming(3)

    def streamed() -> set[int]:
        return {n for n, end in enumerate(pair.primary.pulse().stream_flushed, 1) if end}

    wait_for(lambda: streamed() >= {2, 3}, SOON_S, "the members are seen")
    assert streamed() == {2, 3}


def test_a_stream_whose_name_comes_into_the_set_later_is_ended(pair: Pair) -> None:
    pair.replica("b", slot="b")
    pair.replica("d")
    pair.until_streaming(2)
    pair.set("ANY 1 (b, d)", 2)
    told = "streams under the name of a synchronous replica without a slot"
    wait_for(lambda: told in pair.primary.log(), SOON_S, "it is ended")
    told = '"d" may stream only through its own replication slot'
    wait_for(lambda: told in pair.primary.log(), SOON_S, "and does not come back")


class Impostor:
    """A replication connection that says of WAL it never wrote that it is on its disk."""

    def __init__(self, server: LabServer, name: str, slot: str = "") -> None:
        self._client = RawClient(server.site, replication="true", application_name=name)
        place = server.ask("SELECT pg_current_wal_flush_lsn()")
        through = f"SLOT {slot} " if slot else ""
        self._client.query(f"START_REPLICATION {through}PHYSICAL {place} TIMELINE 1")

    def lies(self) -> str:
        """One status update after the other until the server ends it; what it was told then."""
        far = struct.pack("!cQQQQ?", b"r", *[1 << 62] * 3, 0, False)
        with self._client:
            for _ in range(int(SOON_S / 0.001)):
                with suppress(OSError):
                    self._client.send("d", far)
                if self._client.answers(0.001):
                    message = self._client.next_message()
                    if message is None or message.kind == "E":
                        return message.text if message is not None else ""
        raise AssertionError("it was left alone")


@pytest.mark.parametrize("name", ["b", "c", "ramd_node_2_0123456789abcdef"])
def test_an_impostor_is_no_copy(pair: Pair, name: str) -> None:
    """It bears a member's name, that of one which streams or of one which is down, without its
    slot; and lies. Not one commit may go by it, not even before it is found out."""
    pair.replica("b", slot="b")
    pair.until_streaming(1)
    pair.set("ANY 2 (b, c)", 2)
    wait_for(lambda: pair.loaded(2), SOON_S, "all have it")
    with RawClient(pair.primary.site) as client:
        client.query("INSERT INTO written VALUES (1)")
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        wait_for(lambda: pair.primary.ask(waits) == 1, SOON_S, "it waits")
        told = Impostor(pair.primary, name).lies()
        assert not client.answers()
        assert "may stream only through" in told
        assert f'"{name}"' in pair.primary.log()
        pair.replica("c", slot="c")
        assert [m.kind for m in client.until_ready()] == ["C", "Z"]


def test_waiters_are_released_when_a_change_leaves_enough(pair: Pair) -> None:
    """The replica that is left has confirmed long since, and has nothing more to say by itself."""
    pair.replica("b", slot="b")
    pair.replicas["b"].settings["wal_receiver_status_interval"] = "600"
    pair.replicas["b"].configure()
    os.kill(pair.replicas["b"].pid, signal.SIGHUP)
    pair.until_streaming(1)
    pair.set("ANY 2 (b, c)", 2)
    wait_for(lambda: pair.loaded(2), SOON_S, "all have it")
    with RawClient(pair.primary.site) as client:
        client.query("INSERT INTO written VALUES (1)")
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        wait_for(lambda: pair.primary.ask(waits) == 1, SOON_S, "it waits")
        pair.set("ANY 1 (b, c)", 3)
        assert [m.kind for m in client.until_ready()] == ["C", "Z"]


WEAK = "SET synchronous_commit = off"


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO kept VALUES (1)",
        "BEGIN; SET LOCAL synchronous_commit = local; INSERT INTO kept VALUES (1); COMMIT",
        "BEGIN; INSERT INTO kept VALUES (1); PREPARE TRANSACTION 'weak'",
        "COMMIT PREPARED 'ready'",
        "DO 'BEGIN INSERT INTO kept VALUES (1); COMMIT; END'",
    ],
)
def test_a_transaction_that_asks_for_less_waits_all_the_same(held: Held, sql: str) -> None:
    if "ready" in sql:
        held.prepare("ready")
    weak = held.server.word("WEAK_COMMITS")
    with RawClient(held.server.site) as client:
        client.query(WEAK)
        client.until_ready()
        client.query(sql)
        held.until_waiting()
        held.let_go()
        assert client.until_ready()[-2].kind == "C"
        client.query("SHOW synchronous_commit")
        answered = client.until_ready()
    assert [m.body[6:] for m in answered if m.kind == "D"] == [b"off"]
    assert held.server.word("WEAK_COMMITS") == weak


def test_only_superusers_may_lower_what_is_waited_for(held: Held) -> None:
    held.server.ask("SELECT 1")
    with held.server.connect() as session:
        session.execute(UNHELD)
        session.execute("DROP ROLE IF EXISTS plain")
        session.execute("CREATE ROLE plain")
        session.execute("RESET pgraft.min_synchronous_commit")
        session.execute("SET ROLE plain")
        with pytest.raises(Exception, match="permission denied to set parameter"):
            session.execute("SET pgraft.min_synchronous_commit = off")


@pytest.mark.parametrize("level", ["off", "local"])
def test_a_weak_commit_that_a_set_overtakes_is_not_acknowledged(held: Held, level: str) -> None:
    """It looked while there was nobody to wait for, and stands still before its record: behind the
    lock of another notifier, which is stopped. Meanwhile there is a set, and it may be proven."""
    names = "synchronous_standby_names"
    with RawClient(held.server.site) as first, RawClient(held.server.site) as second:
        first.query("BEGIN; INSERT INTO kept VALUES (1); NOTIFY kept; COMMIT")
        stopped = held.until_waiting()
        os.kill(stopped, signal.SIGSTOP)
        try:
            held.reload(names, "")
            wait_for(lambda: not held.server.pulse().sync_defined, SOON_S, "nobody is waited for")
            second.query(f"SET synchronous_commit = {level}")
            second.until_ready()
            second.query("BEGIN; INSERT INTO kept VALUES (2); NOTIFY kept; COMMIT")
            held.until_waiting("object")
            dropped = held.server.word("DROPPED_SYNC")
            held.reload(names, "nobody")
            wait_for(lambda: held.server.pulse().sync_defined, SOON_S, "somebody is waited for")
        finally:
            os.kill(stopped, signal.SIGCONT)
        acknowledged = [m.text for m in second.until_ready() if m.kind == "C"]
    assert "COMMIT" not in acknowledged
    # The first one's as well: it is not confirmed either.
    assert held.server.word("DROPPED_SYNC") == dropped + 2
