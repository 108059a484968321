"""Decisions and explanations, as a person reads them."""

from __future__ import annotations

from typing import Any

from ramctrl.decisions import decisions_page, explain_page, phases_text

GRANTED: dict[str, Any] = {
    "at": "2026-01-01T00:00:00.000Z",
    "epoch": 3,
    "rule": "switchover",
    "action": "GrantTo",
    "actor": "policy",
    "reason": "to node 2",
    "details": ["node 2: eligible"],
    "phases": [{"name": "drain", "ms": 4}, {"name": "total", "ms": 9}],
}
WAITED = {**GRANTED, "rule": "seal", "at": None, "phases": [], "details": []}


def test_history_is_a_table_with_what_it_took() -> None:
    page = decisions_page({"decisions": [GRANTED, WAITED], "kept": 7})
    assert page.verdict == ("decisions", "2 of the 7 that are kept")
    assert page.rows[0][-1] == "to node 2 (drain 4 ms, total 9 ms)"
    assert page.rows[1] == ("-", "3", "seal", "to node 2")


def test_details_are_blocks() -> None:
    notes = decisions_page({"decisions": [GRANTED, WAITED], "kept": 2}, details=True).notes
    assert "    node 2: eligible" in notes
    assert "  took: drain 4 ms, total 9 ms" in notes
    assert sum("took:" in note for note in notes) == 1


def test_empty_history() -> None:
    assert decisions_page({}).verdict == ("decisions", "0 of the 0 that are kept")
    assert phases_text(None) == ""


def test_explanation_says_what_would_happen() -> None:
    lost = {"rule": "promote_best", "action": "grant", "reason": "best", "node_id": 2}
    nobody = {
        "rule": "nobody_eligible",
        "action": "change nothing",
        "reason": "no",
        "node_id": None,
    }
    page = explain_page(
        {
            "node_id": 1,
            "coordinates": True,
            "now": {"rule": "primary_serving", "action": "change nothing", "reason": "serves"},
            "inputs": ["lease: may move"],
            "switchover_targets": [2],
            "if_server_crashed": lost,
            "if_host_lost": nobody,
            "candidates": [
                {"node_id": 1, "primary": True, "eligible": True, "reason": "holds",
                 "obstacles": [{"reason": "is the primary"}]},
                {"node_id": 2, "primary": False, "eligible": True, "reason": "holds",
                 "obstacles": []},
                {"node_id": 3, "primary": False, "eligible": False, "reason": "is silent",
                 "obstacles": [{"reason": "node 3 is silent"}]},
            ],
        }
    )  # fmt: skip
    facts = dict(page.facts)
    assert page.verdict == ("primary_serving", "serves")
    assert facts["if the primary's server crashed"] == "node 2 [promote_best]: best"
    assert facts["if the primary's host were lost"].startswith("change nothing [nobody_eligible]")
    assert facts["switchover accepted to"] == "node 2"
    assert [row[3] for row in page.rows] == ["-", "accepted", "refused"]
    assert page.notes == ("lease: may move",)


def test_explanation_without_a_primary() -> None:
    facts = dict(explain_page({"now": {}, "if_host_lost": None}).facts)
    assert facts["if the primary's host were lost"] == "there is no primary"
    assert facts["switchover accepted to"] == "nobody"
    assert facts["decides"] == "another node"
