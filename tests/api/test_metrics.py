"""What a scrape shows, where it is served, and that the page of metrics says the same."""

import http.client
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ramd.api.metrics import PATHS, samples
from ramd.api.serve import ApiServer, MetricsPlace
from ramd.domain.model import Phase
from ramd.domain.raft import Counts, DiskFacts, PeerFacts, RaftFacts
from ramd.domain.service import Snapshot
from ramd.metrics.declared import ALIASES, METRICS, Kind
from ramd.metrics.exposition import Exposition, Sample
from ramd.metrics.reference import main, page
from ramd.metrics.requests import RequestMeter
from tests.api import stories
from tests.api.harness import Api, FakeService, control_loop, serving

PROJECT = Path(__file__).parents[2]
SEED_NAMES = {
    "ramd_cluster_nodes_total",
    "ramd_cluster_healthy_nodes",
    "ramd_cluster_primary_node",
    "ramd_replication_lag_seconds",
    "ramd_failover_count_total",
    "ramd_http_requests_total",
    "ramd_http_request_duration_seconds",
}


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with serving(token="a-token-nobody-sends") as served:
        yield served


def scrape(port: int, path: str = "/metrics") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Values:
    """Every sample by name and labels, read as Prometheus' own library reads it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def shown(snapshot: Snapshot) -> Values:
    """What a scrape shows of a snapshot."""
    exposition = Exposition(lambda: samples(snapshot, stories.NOW_NS))
    return parsed(exposition.text()[0].decode())


def of(values: Values, family: str, /, **labels: str) -> float | None:
    return values.get((family, tuple(sorted(labels.items()))))


def raft() -> RaftFacts:
    return RaftFacts(
        role="leader",  # Raft's word
        term=7,
        commit_index=40,
        applied_index=39,
        last_index=41,
        voters=(1, 2),
        outgoing=(1, 3),
        learners=(4,),
        snapshot_index=30,
        log_entries=11,
        peers=(
            PeerFacts(
                node_id=2,
                connected=True,
                match_index=40,
                contact_ns=stories.NOW_NS - 250_000_000,
            ),
            PeerFacts(node_id=3, connected=False),
        ),
        disk=DiskFacts(p50_ms=1.5, p99_ms=20.0, max_ms=30.0),
        loop_lag_ms=2,
        loop_lag_max_ms=90,
        counts=Counts(
            messages_taken=5,
            heartbeats_sent=6,
            elections=(("timeout", 2), ("transfer", 1)),
            frames_dropped=3,
            refused=(("secret", 4),),
            pauses=1,
            snapshots_taken=2,
            snapshots_sent=1,
        ),
    )


def with_raft(snapshot: Snapshot) -> Snapshot:
    assert snapshot.group is not None
    return replace(snapshot, group=replace(snapshot.group, raft=raft()))


def test_every_path_answers_without_a_token_and_in_prometheus_format(api: Api) -> None:
    for path in PATHS:
        status, text = scrape(api.port, path)
        assert status == 200, path
        assert of(parsed(text), "ramd_cluster_nodes_total") == 3
    assert api.get("/health").status == 401  # the rest of the port still asks for it


def test_the_names_that_users_know_are_all_there(api: Api) -> None:
    text = scrape(api.port)[1]
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert names >= SEED_NAMES


def test_a_healthy_cluster() -> None:
    values = shown(stories.healthy())
    assert of(values, "ramd_cluster_healthy_nodes") == 3
    assert of(values, "ramd_cluster_primary_node") == 1
    assert of(values, "ramd_cluster_status", status="healthy") == 1
    assert of(values, "ramd_cluster_status", status="critical") == 0
    assert of(values, "ramd_cluster_has_quorum") == 1
    assert of(values, "ramd_primary") == 1
    assert of(values, "ramd_lease_left_seconds") == 2.5
    assert of(values, "ramd_replication_lag_seconds", node="3", name="node3") == 0.25
    assert of(values, "ramd_replication_lag_bytes", node="3", name="node3") == 4096
    assert of(values, "ramd_node_replication_lag_ms", node="3", name="node3") == 250
    assert of(values, "ramd_node_fenced", node="1", name="node1") == 0
    assert of(values, "ramd_node_state", node="2", name="node2", state="running") == 1


def test_the_lease_ends_with_time_whatever_the_snapshot_says() -> None:
    text = Exposition(lambda: samples(stories.healthy(), stories.NOW_NS + 2_500_000_000)).text()[0]
    values = parsed(text.decode())
    assert of(values, "ramd_primary") == 0
    assert of(values, "ramd_lease_left_seconds") == 0


def test_what_is_not_known_has_no_sample() -> None:
    values = shown(stories.without_heard(stories.healthy(), 3))
    assert of(values, "ramd_node_up", node="3", name="node3") == 0
    assert of(values, "ramd_node_healthy", node="3", name="node3") == 0
    silent = [name for name, labels in values if ("node", "3") in labels]
    assert not {"ramd_replication_lag_seconds", "ramd_node_wal_lsn"} & set(silent)


def test_without_a_cluster_the_daemon_speaks_of_itself_alone() -> None:
    values = shown(stories.clusterless())
    assert of(values, "ramd_daemon_stage", stage="clusterless") == 1
    assert of(values, "ramd_daemon_uptime_seconds") == 60
    assert of(values, "ramd_postgresql_connected") == 0
    assert not [name for name, _ in values if name.startswith(("ramd_cluster", "ramd_raft"))]


def test_raft() -> None:
    values = shown(with_raft(stories.healthy()))
    assert of(values, "ramd_raft_term") == 7
    assert of(values, "ramd_cluster_leader_term") == 7
    assert of(values, "ramd_raft_role", role="leader") == 1
    assert of(values, "ramd_raft_joint_change") == 1
    assert of(values, "ramd_raft_member", node="4") == 0
    assert of(values, "ramd_raft_member", node="3") == 1
    assert of(values, "ramd_raft_peer_last_contact_seconds", node="2") == 0.25
    assert of(values, "ramd_raft_peer_match_index", node="2") == 40
    assert of(values, "ramd_raft_peer_match_index", node="3") is None
    assert of(values, "ramd_raft_disk_sync_seconds", quantile="0.99") == 0.02
    assert of(values, "ramd_raft_elections_total", reason="timeout") == 2
    assert of(values, "ramd_raft_connections_refused_total", code="secret") == 4
    assert of(values, "ramd_raft_snapshots_total", what="taken") == 2
    assert of(values, "ramd_loop_pauses_total") == 1


def with_phases(snapshot: Snapshot) -> Snapshot:
    """The primary was moved twice; the last decision moved nothing."""
    first, second = ((Phase(name="total", ms=ms), Phase(name="grant", ms=7)) for ms in (90, 1250))
    record = snapshot.state.decisions[0]
    moved = (replace(record, phases=first), replace(record, phases=second), record)
    return replace(snapshot, state=replace(snapshot.state, decisions=moved))


def test_the_last_change_of_primary_by_phase() -> None:
    found = {
        sample.labels: sample.value
        for sample in samples(with_phases(stories.healthy()), stories.NOW_NS)
        if sample.name == "ramd_primary_change_seconds"
    }
    assert found == {("total",): 1.25, ("grant",): 0.007}


def test_every_declared_family_can_be_filled() -> None:
    """A name that nothing ever fills would be an empty promise."""
    full = with_phases(with_raft(stories.healthy()))
    full = replace(full, daemon=replace(full.daemon, certificate_until_unix_s=1.8e9))
    meter = RequestMeter()
    meter.begin()
    meter.end("GET", "/health", 200, 0.1)
    names = {sample.name for sample in (*samples(full, stories.NOW_NS), *meter.samples())}
    names |= {"ramd_http_requests_total", "ramd_http_request_duration_seconds"}
    assert names == set(METRICS) - {alias.name for alias in ALIASES.metrics}


def test_names_follow_the_kinds() -> None:
    for metric in METRICS.values():
        assert (metric.kind is Kind.COUNTER) <= metric.name.endswith("_total")
        assert metric.name.startswith("ramd_")
        assert metric.help.endswith(".")


def test_requests_are_counted_by_route_and_status() -> None:
    with serving() as api:
        api.get("/nodes/1")
        api.get("/nodes/no-such")
        api.get("/bogus/path")
        api.ask("GET", "/primary")
        api.ask("TRACE", "/nowhere/at/all")
        text = scrape(api.port)[1]
    values = parsed(text)
    route = "/api/v1/nodes/{node_id}"
    assert of(values, "ramd_http_requests_total", method="GET", route=route, code="200") == 1
    assert of(values, "ramd_http_requests_total", method="GET", route=route, code="404") == 1
    assert of(values, "ramd_http_requests_total", method="GET", route="other", code="404") == 1
    assert of(values, "ramd_http_requests_total", method="GET", route="/primary", code="200") == 1
    assert of(values, "ramd_http_requests_total", method="other", route="other", code="404") == 1
    assert of(values, "ramd_http_request_duration_seconds_count", method="GET", route=route) == 2
    assert of(values, "ramd_http_requests_4xx") == 3
    assert of(values, "ramd_http_requests_in_flight") == 1  # this scrape itself


def test_a_sample_that_is_not_declared_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="not declared"):
        Exposition(lambda: [Sample("ramd_invented", 1)]).text()


def test_a_port_of_their_own() -> None:
    place = MetricsPlace(bind="127.0.0.1", port=0, path="/scrape/me")
    with control_loop() as loop:
        server = ApiServer(
            FakeService(), control_loop=loop, bind="127.0.0.1", port=0, metrics=place
        )
        server.start()
        try:
            assert server.metrics_port not in (None, server.port)
            port = server.metrics_port or 0
            assert scrape(port, "/scrape/me")[0] == 200
            assert scrape(port, "/metrics")[0] == 404
            assert scrape(port, "/api/v1/health")[0] == 404
            assert scrape(server.port, "/metrics")[0] == 200
        finally:
            server.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)


def test_metrics_without_the_rest_interface() -> None:
    place = MetricsPlace(bind="127.0.0.1", port=0, path="/metrics")
    with control_loop() as loop:
        server = ApiServer(
            FakeService(), control_loop=loop, bind="127.0.0.1", port=None, metrics=place
        )
        server.start()
        try:
            assert server.port == 0
            assert scrape(server.metrics_port or 0)[0] == 200
        finally:
            server.stop()


def test_a_metrics_port_in_use_costs_the_metrics_port_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving() as taken, control_loop() as loop:
        place = MetricsPlace(bind="127.0.0.1", port=taken.port, path="/metrics")
        server = ApiServer(
            FakeService(), control_loop=loop, bind="127.0.0.1", port=0, metrics=place
        )
        server.start()
        try:
            assert server.metrics_port is None
            assert scrape(server.port)[0] == 200
        finally:
            server.stop()
    said = [r for r in caplog.records if getattr(r, "event", "") == "metrics_port_taken"]
    assert f"prometheus_port {taken.port} on 127.0.0.1 is in use" in said[0].getMessage()


def test_the_page_is_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hint = "run `python -m ramd.metrics.reference --write`"
    assert (PROJECT / "docs/metrics.md").read_text(encoding="utf-8") == page(), hint
    assert all(f"| `{name}` |" in page() for name in METRICS)
    monkeypatch.chdir(tmp_path)
    assert main(["--check"]) == 1
    assert "docs/metrics.md: out of date" in capsys.readouterr().err
    assert main(["--write"]) == 0
    assert main(["--check"]) == 0
    assert main([]) == 2
