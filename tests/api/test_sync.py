"""Synchronous replication through the API and ramctrl: shown, asked for, refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ramd.domain.errors import Refused
from ramd.domain.lsn import Lsn
from ramd.domain.model import Settings
from ramd.domain.service import FailoverRequest, Snapshot, SyncChange
from ramd.domain.sync import (
    Stream,
    SyncMember,
    SyncMode,
    SyncOrder,
    SyncRecord,
    SyncSeen,
    SyncSet,
)
from tests.api.harness import Api, serving
from tests.api.stories import healthy, heard, primary_seen, with_heard
from tests.unit.ramctrl.cli import ramctrl

COPY = {2: "2" * 16, 3: "3" * 16}
BOTH = SyncSet(members=tuple(SyncMember(node_id=n, copy=COPY[n]) for n in (2, 3)), k=1)


def streaming(*nodes: int, proven: int = 7, waits_for: str = "") -> Snapshot:
    """Commits wait for any 1 of 2 and 3; `nodes` stream."""
    story = healthy()
    state = replace(
        story.state,
        sync=SyncRecord(generation=7, rules=(BOTH,)),
        settings=Settings(sync_standby_names=("node2",), enforce_sync_standbys=True),
    )
    streams = tuple(
        Stream(node_id=n, copy=COPY[n], flushed=Lsn(0x5000), counts=True) for n in nodes
    )
    seen = SyncSeen(streams=streams, generation=proven, waits_for=waits_for)
    return with_heard(replace(story, state=state), heard(replace(primary_seen(), sync=seen)))


@pytest.fixture(scope="module")
def served() -> Iterator[Api]:
    with serving() as api:
        yield api


@pytest.fixture
def api(served: Api) -> Api:
    served.service.story = streaming(2)
    served.service.fails = None
    served.service.asked.clear()
    return served


@pytest.mark.parametrize("path", ["/sync-standbys/status", "/replication/sync"])
def test_status(api: Api, path: str) -> None:
    answer = api.get(path)
    assert answer.body["message"] == "commits wait for any 1 of node 2, 3"
    assert answer.data == {
        "mode": "auto",
        "synchronous": True,
        "waits_for": "any 1 of node 2, 3",
        "required": 1,
        "generation": 7,
        "changing_to": None,
        "proven": True,
        "obstacle": "",
        "synchronous_standbys": ["node2", "node3"],
        "num_sync_standbys": 1,
        "any_n_enabled": True,
        "sync_replication_timeout_ms": 10_000,
        "enforce_sync_standbys": True,
        "sync_standby_names": ["node2"],
        "nodes": [
            {
                "id": 2,
                "name": "node2",
                "may_confirm": True,
                "member": True,
                "streaming": True,
                "copy_id": COPY[2],
                "flushed_lsn": "0/5000",
            },
            {
                "id": 3,
                "name": "node3",
                "may_confirm": False,
                "member": True,
                "streaming": False,
                "copy_id": COPY[3],
                "flushed_lsn": None,
            },
        ],
    }


def test_a_change_under_way_and_what_it_waits_for(api: Api) -> None:
    story = streaming(2, proven=0, waits_for="0 of 1 members have confirmed")
    record = SyncRecord(generation=8, rules=(SyncSet(), BOTH), target=BOTH)
    api.service.story = replace(story, state=replace(story.state, sync=record))
    data = api.get("/sync-standbys/status").data
    assert data["changing_to"] == "any 1 of node 2, 3"
    assert not data["proven"]
    assert data["obstacle"] == "0 of 1 members have confirmed"
    status = api.get("/cluster/status").data
    assert status["synchronous_replication"] is True
    assert status["sync"] == {key: data[key] for key in status["sync"]}


def test_a_change_is_asked_of_the_service(api: Api) -> None:
    body = {"mode": "on", "num_sync_standbys": 2, "sync_replication_timeout_ms": 500}
    answer = api.post("/replication/sync", body)
    assert answer.status == 200
    assert api.post("/sync-standbys/add", {"node_name": "node3"}).status == 200
    assert api.post("/sync-standbys/remove", {"node_name": "node3"}).status == 200
    actor = "api 127.0.0.1"
    assert api.service.asked == [
        SyncChange(
            order=SyncOrder(mode=SyncMode.ON, num_sync_standbys=2, sync_replication_timeout_ms=500),
            actor=actor,
        ),
        SyncChange(order=SyncOrder(add="node3"), actor=actor),
        SyncChange(order=SyncOrder(remove="node3"), actor=actor),
    ]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/replication/sync", {"mode": "remote"}, "mode"),
        ("/replication/sync", {"num_sync_standbys": 0}, "num_sync_standbys"),
        ("/replication/sync", {"num_sync_standbys": "2"}, "num_sync_standbys"),
        ("/replication/sync", {"number": 2}, "number"),
        ("/sync-standbys/add", {}, "node_name"),
        ("/sync-standbys/remove", {"node_name": ""}, "node_name"),
    ],
)
def test_what_makes_no_sense_is_refused(
    api: Api, path: str, body: dict[str, object], field: str
) -> None:
    answer = api.post(path, body)
    assert (answer.status, answer.body["error"]) == (400, "invalid_field")
    assert answer.body["details"]["field"] == field
    assert api.service.asked == []


def test_the_services_refusal_is_passed_on(api: Api) -> None:
    api.service.fails = Refused("no", code="conflict", field="num_sync_standbys", hint="1 to 2")
    answer = api.post("/replication/sync", {"num_sync_standbys": 3})
    assert (answer.status, answer.body["hint"]) == (409, "1 to 2")


def test_a_failover_at_any_price_is_passed_on(api: Api) -> None:
    api.post("/cluster/failover", {"target_node": "node2", "accept_loss": True})
    assert api.service.asked[-1] == FailoverRequest(
        target=2, actor="api 127.0.0.1", accept_loss=True
    )


# --- ramctrl -------------------------------------------------------------------------------------

STATUS = f"""\
healthy: commits wait for any 1 of node 2, 3
mode     auto
wanted   1 must confirm
too few  writes wait

ID  NAME   CONFIRMS  STREAMS  FLUSHED  COPY
2   node2  yes       yes      0/5000   {COPY[2]}
3   node3  yes       no       -        {COPY[3]}
"""


def test_ramctrl_shows_it(api: Api) -> None:
    ran = ramctrl("--port", str(api.port), "replication", "status")
    assert (ran.code, ran.out) == (0, STATUS)
    again = ramctrl("--port", str(api.port), "show", "replication")
    assert again.out == STATUS


def test_ramctrl_shows_what_is_waited_for(api: Api) -> None:
    story = streaming(proven=0, waits_for="0 of 1 members have confirmed")
    record = SyncRecord(generation=8, rules=(SyncSet(),), target=BOTH)
    settings = replace(story.state.settings, enforce_sync_standbys=False)
    state = replace(story.state, sync=record, settings=settings)
    api.service.story = replace(story, state=state)
    out = ramctrl("--port", str(api.port), "replication", "status").out
    assert out.startswith("degraded: commits wait for nobody\n")
    assert "writes wait 10000 ms, then go on without them" in out
    assert "changing to  any 1 of node 2, 3" in out
    assert "waits for    0 of 1 members have confirmed" in out


def test_ramctrl_changes_it(api: Api) -> None:
    port = ("--port", str(api.port))
    assert ramctrl(*port, "replication", "set-mode", "on", "--count", "2", "--enforce").code == 0
    assert ramctrl(*port, "replication", "set-mode", "--wait-ms", "700", "--no-enforce").code == 0
    assert ramctrl(*port, "replication", "add", "node3").code == 0
    assert ramctrl(*port, "replication", "remove", "node3").code == 0
    asked = [change.order for change in api.service.asked if isinstance(change, SyncChange)]
    assert asked == [
        SyncOrder(mode=SyncMode.ON, num_sync_standbys=2, enforce_sync_standbys=True),
        SyncOrder(sync_replication_timeout_ms=700, enforce_sync_standbys=False),
        SyncOrder(add="node3"),
        SyncOrder(remove="node3"),
    ]
    assert ramctrl(*port, "replication", "set-mode").code == 2
    assert ramctrl(*port, "cluster", "failover", "--target", "2", "--accept-loss").code == 0
    assert api.service.asked[-1] == FailoverRequest(
        target=2, actor="api 127.0.0.1", accept_loss=True
    )
