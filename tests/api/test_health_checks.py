"""The raw health endpoints, asked as a load balancer asks them."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ramd.api.health import CHECKS, look_at_self, parse_size
from ramd.domain.observation import ServerState
from ramd.domain.service import Snapshot, Stage
from tests.api import stories
from tests.api.harness import Api, serving
from tests.api.stories import (
    NOW_NS,
    SECOND_NS,
    healthy,
    heard,
    primary_seen,
    replica_seen,
    with_heard,
)

PRIMARY_PATHS = {"/", "/primary", "/read-write", "/leader"}
ALWAYS_WHEN_WELL = {"/read-only", "/health", "/liveness", "/readiness"}


@pytest.fixture(scope="module")
def served() -> Iterator[Api]:
    with serving(token="a-token-of-the-test") as api:
        yield api


@pytest.fixture
def api(served: Api) -> Api:
    served.service.story = healthy()
    served.service.now = NOW_NS
    return served


def good(api: Api, story: Snapshot) -> set[str]:
    """The health paths that answer 200; the rest must answer 503."""
    api.service.story = story
    statuses = {path: api.ask("GET", path).status for path in CHECKS}
    assert set(statuses.values()) <= {200, 503}
    return {path for path, status in statuses.items() if status == 200}


def test_primary(api: Api) -> None:
    assert good(api, healthy(me=1)) == PRIMARY_PATHS | ALWAYS_WHEN_WELL


def test_replica(api: Api) -> None:
    assert good(api, healthy(me=2)) == {"/replica"} | ALWAYS_WHEN_WELL


def test_without_a_cluster_only_the_daemon_is_alive(api: Api) -> None:
    assert good(api, stories.clusterless()) == {"/liveness"}


def test_primary_fails_by_its_own_clock_when_its_lease_ends(api: Api) -> None:
    deadline_ns = api.service.story.lease_deadline_ns
    api.service.now = deadline_ns - 1_000_000
    assert api.ask("GET", "/primary").status == 200
    api.service.now = deadline_ns
    answer = api.ask("GET", "/primary")
    assert answer.status == 503
    assert answer.body["reason"] == "no lease: this server may not accept writes"
    assert api.ask("GET", "/leader").status == 503
    assert api.ask("GET", "/read-only").status == 503


def test_a_lease_of_an_earlier_epoch_counts_for_nothing(api: Api) -> None:
    assert not good(api, replace(healthy(), lease_epoch=0)) & PRIMARY_PATHS


def test_a_crashed_primary_is_good_for_nothing(api: Api) -> None:
    crashed = replace(primary_seen(), state=ServerState.CRASHED, accepting=False)
    assert good(api, with_heard(healthy(), heard(crashed))) == {"/leader", "/liveness"}


def test_a_server_that_was_not_looked_at_lately_is_not_up(api: Api) -> None:
    old = with_heard(healthy(me=2), heard(replica_seen(2), age_ms=9_000))
    assert good(api, old) == {"/liveness"}


def test_liveness_needs_a_turning_loop(api: Api) -> None:
    api.service.now = NOW_NS + 2_900_000_000
    assert api.ask("GET", "/liveness").status == 200
    api.service.now = NOW_NS + 3_100_000_000
    assert api.ask("GET", "/liveness").status == 503
    api.service.story = healthy(me=2)  # holds no lease: twice the time
    assert api.ask("GET", "/liveness").status == 200
    api.service.now = NOW_NS + 6_100_000_000
    assert api.ask("GET", "/liveness").status == 503


def test_a_daemon_that_waits_for_a_cluster_is_alive_however_long(api: Api) -> None:
    api.service.now = NOW_NS + 3_600 * SECOND_NS
    for stage in (Stage.CLUSTERLESS, Stage.FORMING):
        api.service.story = stories.clusterless(stage)
        assert api.ask("GET", "/liveness").status == 200
    api.service.story = stories.clusterless(Stage.FORMED)
    assert api.ask("GET", "/liveness").status == 503


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("lag=4096", 200),
        ("lag=4kB", 200),
        ("lag=4095", 503),
        ("lag=1MB&replication_state=streaming", 200),
        ("lag=sixteen", 400),
        ("lag=-1", 400),
        ("lag=4096PB", 400),
        ("replication_state=running", 400),
    ],
)
def test_replica_with_conditions(api: Api, query: str, status: int) -> None:
    api.service.story = healthy(me=3)  # 4096 bytes behind
    assert api.ask("GET", f"/replica?{query}").status == status


def test_unknown_lag_is_not_a_small_lag(api: Api) -> None:
    api.service.story = stories.without_heard(healthy(me=3), 1)
    answer = api.ask("GET", "/replica?lag=100GB")
    assert answer.status == 503
    assert answer.body["lag_bytes"] is None
    assert api.ask("GET", "/replica").status == 200


def test_a_replica_that_does_not_stream_is_not_ready(api: Api) -> None:
    api.service.story = with_heard(healthy(me=3), heard(replace(replica_seen(3), upstream=None)))
    assert api.ask("GET", "/replica").status == 200
    assert api.ask("GET", "/replica?replication_state=streaming").status == 503
    assert api.ask("GET", "/readiness").status == 503


@pytest.mark.parametrize("path", sorted(CHECKS))
def test_get_head_and_options_agree_and_need_no_token(api: Api, path: str) -> None:
    answers = {method: api.ask(method, path) for method in ("GET", "HEAD", "OPTIONS")}
    assert len({answer.status for answer in answers.values()}) == 1
    assert answers["HEAD"].body is None
    assert answers["GET"].headers["cache-control"] == "no-store"


def test_a_health_check_is_not_for_writing(api: Api) -> None:
    answer = api.ask("POST", "/primary", {})
    assert (answer.status, answer.body["error"]) == (405, "method_not_allowed")


def test_lease_left_is_shown_only_to_its_holder() -> None:
    assert look_at_self(healthy(me=1), NOW_NS).lease_left_ms == 2_500
    assert look_at_self(healthy(me=2), NOW_NS).lease_left_ms == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("16MB", 16 << 20), ("16 mb", 16 << 20), ("1g", 1 << 30), ("8192B", 8192)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "1.5MB", "1XB", "١", "9" * 19, "0x10", "1MBMB"])
def test_not_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="lag="):
        parse_size(text)
