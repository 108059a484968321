"""What the comparison of consensus reads off the wire, and what it makes of its figures."""

from __future__ import annotations

import json

import pytest

from bench.consensus.groups import agreed
from bench.consensus.measure import FOLLOWER, HOP, KILLED, LEADER, WINDOW, Rounds, Sample
from bench.consensus.report import DEFAULTS, OURS, THEIRS, Report, Silence
from bench.consensus.wire import (
    FRAME_BYTES_MAX,
    Frames,
    Garbage,
    Kind,
    Request,
    Standing,
    etcd_standing,
    fields,
    put_request,
    varint,
)

STATUS = bytes.fromhex("0a0a 08e707 10ac02 1805 2003 1206332e342e3233 20ac02 2809 3003 3808")
"""A StatusResponse: header (cluster, member 300, revision, term), version, leader 300, index 9,
term 3, applied 8."""


def test_frames_come_out_as_they_went_in_however_the_stream_is_cut() -> None:
    requests = [Request(1, Kind.PUT, b"x" * 300), Request(2, Kind.HOP), Request(1 << 40, Kind.DONE)]
    stream = b"".join(request.encode() for request in requests)
    for size in (1, 7, len(stream)):
        frames = Frames()
        parts = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert [request for part in parts for request in frames.feed(part)] == requests


def test_a_frame_longer_than_the_bound_is_garbage() -> None:
    too_long = (FRAME_BYTES_MAX + 1).to_bytes(4, "big") + bytes(9)
    with pytest.raises(Garbage):
        list(Frames().feed(too_long))


@pytest.mark.parametrize(
    ("value", "encoded"), [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02")]
)
def test_integers_have_protobufs_form(value: int, encoded: str) -> None:
    assert varint(value).hex() == encoded


def test_a_put_is_key_and_value_by_number() -> None:
    assert put_request(b"k", b"v").hex() == "0a016b" + "120176"
    assert fields(put_request(b"k", b"v" * 300)) == {1: b"k", 2: b"v" * 300}


def test_a_status_of_etcd_tells_who_leads_and_how_far_the_member_is() -> None:
    assert etcd_standing(STATUS) == Standing(member=300, leader=300, applied=8)


def test_a_status_of_a_member_without_leader_names_none() -> None:
    header = STATUS[:12]
    assert etcd_standing(header) == Standing(member=300, leader=0, applied=0)


@pytest.mark.parametrize("message", [b"", STATUS[:-1], b"\x09" + bytes(8), b"\x0a\x05x"])
def test_what_is_no_status_is_garbage(message: bytes) -> None:
    with pytest.raises(Garbage):
        etcd_standing(message)


def at(member: int, leader: int, applied: int) -> Standing:
    return Standing(member=member, leader=leader, applied=applied)


@pytest.mark.parametrize(
    ("standings", "leader"),
    [
        ([at(11, 12, 5), at(12, 12, 5), at(13, 12, 6)], 1),
        ([at(11, 12, 5), at(12, 12, 5), at(13, 12, 4)], None),
        ([at(11, 12, 5), at(12, 12, 5), at(13, 11, 5)], None),
        ([at(11, 0, 5), at(12, 0, 5), at(13, 0, 5)], None),
    ],
)
def test_a_group_is_healthy_once_all_name_one_leader_and_have_caught_up(
    standings: list[Standing], leader: int | None
) -> None:
    assert agreed(standings) == leader


def sample(*took_ms: float) -> Sample:
    return Sample(took_ms=list(took_ms), seconds=sum(took_ms) / 1e3)


def test_p99_is_the_value_that_ninety_nine_of_a_hundred_do_not_exceed() -> None:
    assert sample(*(float(n) for n in range(1, 201))).p99 == 198.0
    assert sample(2.0).p99 == 2.0


def report(ours_ms: float) -> Report:
    done: Rounds = [
        {
            OURS: dict.fromkeys((LEADER, FOLLOWER, WINDOW), sample(ours_ms, ours_ms))
            | {HOP: sample(1.0)},
            THEIRS: dict.fromkeys((LEADER, FOLLOWER, WINDOW), sample(2.0, 2.0))
            | {HOP: sample(1.5)},
        }
    ] * 2
    made = Report(versions={"etcd": "3"}, setting={"loop": "asyncio"}, load_before=[1.0, 1.0, 1.0])
    made.rounds = done
    made.silences.append(
        Silence(
            kind=KILLED,
            timing=DEFAULTS,
            setting="pgraft 1/2, etcd 3/4",
            took_ms={OURS: [100.0], THEIRS: [1000.0]},
        )
    )
    made.ended()
    return made


def aims(made: Report) -> list[str]:
    return [line.rpartition(": ")[2] for line in made.verdicts() if "aim at most" in line]


def test_an_aim_that_is_missed_is_called_missed() -> None:
    assert aims(report(4.0)) == ["met", "met", "met"]
    assert aims(report(4.1)) == ["MISSED", "MISSED", "met"]


def test_the_clients_way_is_taken_off_beside_the_aims() -> None:
    line = "the same less the client's way, p50 (no aim): 3.00 against 0.50 ms, 6.00 ×"
    assert line in report(4.0).verdicts()


def test_the_page_and_the_json_hold_each_round_and_all_together() -> None:
    made = report(3.0)
    assert made.text().count(f"| {LEADER} |") == 3
    assert "| 3.00 / 3.00 ms | 333 | 2.00 / 2.00 ms | 500 | 1.50 | 1.50 |" in made.text()
    kept = json.loads(made.json())
    assert len(kept["rounds"]) == 2
    assert kept["overall"][LEADER]["ratio"] == {"p50": 1.5, "p99": 1.5}
    assert kept["overall"][LEADER][OURS]["n"] == 4
    assert kept["silences"][0]["ms"] == {OURS: [100.0], THEIRS: [1000.0]}
