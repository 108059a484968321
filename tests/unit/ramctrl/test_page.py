"""What pages say: nothing unknown becomes a zero."""

import pytest

from ramctrl import page

NODE: dict[str, object] = {
    "id": 2,
    "name": "node2",
    "hostname": "db2",
    "port": 5432,
    "role": "replica",
    "state": "running",
    "timeline": 3,
    "replication_lag_bytes": 2048,
    "replication_lag_ms": 40,
    "last_seen_age_ms": 300,
    "trouble": "",
    "activity": "",
}


def row(**changed: object) -> dict[str, str]:
    listed = page.nodes_page({"nodes": [{**NODE, **changed}]})
    return dict(zip(listed.columns, listed.rows[0], strict=True))


def test_row_of_a_node() -> None:
    assert row() == {
        "ID": "2",
        "NAME": "node2",
        "ROLE": "replica",
        "STATE": "running",
        "ADDRESS": "db2:5432",
        "TL": "3",
        "LAG": "2.0 kB / 0.0 s",
        "SEEN": "0.3 s ago",
        "NOTE": "",
    }


@pytest.mark.parametrize(
    ("behind", "late_ms", "lag"),
    [
        (None, None, "unknown"),
        (None, 1500, "unknown / 1.5 s"),
        (0, None, "0 B / unknown"),
        (0, 0, "0 B / 0.0 s"),
        (3 << 40, 0, "3.0 TB / 0.0 s"),
    ],
)
def test_lag(behind: int | None, late_ms: int | None, lag: str) -> None:
    assert row(replication_lag_bytes=behind, replication_lag_ms=late_ms)["LAG"] == lag


def test_a_primary_has_no_lag() -> None:
    assert row(role="primary", replication_lag_bytes=0)["LAG"] == "-"


def test_trouble_goes_before_activity() -> None:
    assert row(activity="clone, 40 %")["NOTE"] == "clone, 40 %"
    assert row(trouble="does not stream", activity="clone")["NOTE"] == "does not stream"


@pytest.mark.parametrize(
    ("age_ms", "seen"),
    [
        (None, "never"),
        (0, "0.0 s ago"),
        (9_900, "9.9 s ago"),
        (90_000, "90 s ago"),
        (180_000, "3 min ago"),
        (7_200_000, "2 h ago"),
        (864_000_000, "10 d ago"),
    ],
)
def test_seen(age_ms: int | None, seen: str) -> None:
    assert row(last_seen_age_ms=age_ms)["SEEN"] == seen


def test_a_status_of_nothing_but_unknowns_is_readable() -> None:
    shown = page.status_page({"cluster_status": "critical", "nodes": [{"id": 1}]}, 0.0)
    facts = dict(shown.facts)
    assert facts["primary"] == "none"
    assert facts["coordinator"] == "unknown, term unknown, NO QUORUM"
    assert facts["failover"].startswith("NOT automatic")


def test_a_failover_of_unknown_length() -> None:
    shown = page.failover_page({"old_primary": None, "new_primary": 2, "failover_time_ms": 40})
    assert shown.verdict == ("done", "no primary → node 2")
    assert dict(shown.facts)["without writes"] == "unknown"
