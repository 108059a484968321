"""Orders that the present state of a real cluster forbids: refused with the reason and what would
be accepted, by REST and by ramctrl, and nothing is changed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import pytest

from ramd.policy.obstacles import LAG_BYTES_MAX
from tests.support.cluster_stories import (
    HEAL_S,
    SOON_S,
    Clusters,
    ask,
    epoch_of,
    node_of,
    primary_of,
    replicas_of,
    same_everywhere,
    write,
)
from tests.support.sync_stories import until_settled
from tests.support.wait import wait_for
from tests.unit.ramctrl.cli import Ran, ramctrl
from tools.local_cluster import LocalCluster


@pytest.fixture(scope="module")
def cluster(clusters: Clusters) -> LocalCluster:
    made = clusters.three_nodes(pgraft_extension="required")
    until_settled(made)
    return made


def still(cluster: LocalCluster) -> dict[str, Any]:
    """What a refused order must leave as it was."""
    status = cluster.status()
    assert status is not None
    kept = ("epoch", "timeline", "primary_node_id", "failover_count", "sync")
    recorded = cluster.api(1, "GET", "/cluster/decisions?limit=100")[1]["data"]["decisions"]
    return {key: status[key] for key in kept} | {
        # A coordinator may change at any time, and leaves the primary's host by itself.
        "decisions": [one for one in recorded if one["rule"] != "move_coordinator"],
        "servers": [cluster.processes.postmaster_pid(node) for node in (1, 2, 3)],
    }


def asked_of(cluster: LocalCluster, node: int, *arguments: object) -> Ran:
    port = str(cluster.ports.http + node - 1)
    return ramctrl("--port", port, *(str(argument) for argument in arguments))


def test_what_the_state_forbids_changes_nothing(cluster: LocalCluster) -> None:
    until_settled(cluster)
    primary, (replica, other) = primary_of(cluster), replicas_of(cluster)
    first = "accepted now: node "  # the more advanced one comes first
    targets = (f"{first}{replica}, {other}", f"{first}{other}, {replica}")
    names = f"node{replica}, node{other}"
    cases = [
        ("/cluster/failover", {"target_node": 7}, 404, "not_found", "nodes: node1, node2, node3"),
        ("/cluster/failover", {"target_node": primary}, 409, "conflict", targets),
        ("/cluster/promote", {"node_id": primary}, 409, "conflict", targets),
        ("/cluster/demote", {"node_id": replica}, 409, "conflict", "'primary'"),
        ("/replication/sync", {"num_sync_standbys": 3}, 400, "invalid_field", "1 to 2"),
        ("/sync-standbys/add", {"node_name": "nobody"}, 404, "not_found", names),
        ("/sync-standbys/add", {"node_name": f"node{primary}"}, 409, "conflict", names),
        ("/sync-standbys/add", {"node_name": f"node{replica}"}, 409, "conflict", "no replica"),
        ("/sync-standbys/remove", {"node_name": f"node{primary}"}, 409, "conflict", names),
    ]
    before = still(cluster)
    for node in (primary, replica):
        for path, body, code, word, accepted in cases:
            status, answer = cluster.api(node, "POST", path, body, timeout_s=30)
            assert (status, answer["error"]) == (code, word), (path, body, answer)
            either = (accepted,) if isinstance(accepted, str) else accepted
            assert any(words in answer["hint"] for words in either), (path, body, answer)
            assert answer["message"]
    for arguments, exit_code, says in (
        (("failover", "--target", primary), 5, "is the primary already"),
        (("failover", "--target", "nobody"), 4, "there is no node"),
        (("demote", replica), 5, "is not the primary"),
        (("replication", "set-mode", "--count", 3), 2, "there are 2 that may"),
        (("replication", "add", f"node{replica}"), 5, "already"),
    ):
        ran = asked_of(cluster, replica, *arguments)
        assert (ran.code, ran.out) == (exit_code, ""), (arguments, ran)
        assert says in ran.err
    assert still(cluster) == before


def test_the_last_one_that_may_confirm_is_not_taken_away(cluster: LocalCluster) -> None:
    until_settled(cluster)
    primary, (replica, other) = primary_of(cluster), replicas_of(cluster)
    order = ("POST", "/sync-standbys/remove")
    gone = cluster.api(primary, *order, {"node_name": f"node{replica}"}, timeout_s=30)
    assert gone[0] == 200, gone
    before = still(cluster)
    for name, says in ((f"node{other}", "num_sync_standbys is 1"), (f"node{replica}", "anyway")):
        status, answer = cluster.api(replica, *order, {"node_name": name}, timeout_s=30)
        assert (status, answer["error"]) == (409, "conflict"), answer
        assert says in answer["message"]
        assert answer["hint"]
    assert still(cluster) == before
    back = {"node_name": f"node{replica}"}
    assert cluster.api(primary, "POST", "/sync-standbys/add", back, timeout_s=30)[0] == 200
    until_settled(cluster)


def test_of_two_orders_at_once_nobody_gets_the_others_answer(cluster: LocalCluster) -> None:
    """Two daemons are asked for two targets at the same instant: whoever hears of success has got
    what was asked for."""
    until_settled(cluster)
    targets = replicas_of(cluster)
    epoch = epoch_of(cluster)

    def move(node: int) -> tuple[int, dict[str, Any]]:
        return cluster.api(node, "POST", "/cluster/failover", {"target_node": node}, timeout_s=90)

    with ThreadPoolExecutor(2) as pool:
        answers = dict(zip(targets, pool.map(move, targets), strict=True))
    done = [node for node, (status, _) in answers.items() if status == 200]
    assert done, answers
    for node, (status, answer) in answers.items():
        if status == 200:
            assert answer["data"]["new_primary"] == node
        else:
            assert status == 409, answer
            assert answer["error"] in ("busy", "conflict", "no_candidate", "other_node_promoted")
    assert len(done) <= epoch_of(cluster) - epoch <= len(targets)
    until_settled(cluster)


def test_orders_about_different_settings_at_once_all_take_effect(cluster: LocalCluster) -> None:
    """Two daemons are asked at the same instant; settings are recorded whole."""
    until_settled(cluster)
    one, other = replicas_of(cluster)

    def order(asked: tuple[int, dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        return cluster.api(asked[0], "POST", "/replication/sync", asked[1], timeout_s=60)

    for turn in range(10):
        enforced = turn % 2 == 0
        wanted = {
            "sync_replication_timeout_ms": 10_000 - turn,
            "enforce_sync_standbys": enforced,
        }
        bodies = [{key: value} for key, value in wanted.items()]
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(order, zip((one, other), bodies, strict=True)))
        assert [status for status, _ in answers] == [200, 200], answers
        data = cluster.api(primary_of(cluster), "GET", "/replication/sync")[1]["data"]
        assert {key: data[key] for key in wanted} == wanted, f"turn {turn}"
    usual = {"sync_replication_timeout_ms": 10_000, "enforce_sync_standbys": False}
    assert order((one, usual))[0] == 200


def test_a_target_that_has_just_died_is_not_told_as_success(cluster: LocalCluster) -> None:
    """Nobody counts it as silent yet. Either it is refused or undone, and the old primary goes on,
    or the answer names who took over instead."""
    until_settled(cluster)
    primary, (target, _) = primary_of(cluster), replicas_of(cluster)
    rows = write(cluster, range(1, 11))
    cluster.kill_node(target)
    asked = {"target_node": target}
    status, answer = cluster.api(primary, "POST", "/cluster/failover", asked, timeout_s=90)
    assert status in (409, 503), answer
    wait_for(lambda: bool((cluster.status() or {}).get("has_quorum")), HEAL_S, "a quorum")
    if answer["error"] == "other_node_promoted":
        assert answer["details"]["new_primary"] == primary_of(cluster) != target
    elif status == 409:
        assert answer["error"] == "no_candidate"
        assert f"node {target}" in answer["message"]
        assert primary_of(cluster) == primary
    cluster.spawn(target)
    until_settled(cluster)
    same_everywhere(cluster, rows)


@contextmanager
def behind(cluster: LocalCluster, node: int) -> Iterator[None]:
    """The node answers, its stream stands, and it lacks more than a switchover may wait for."""
    rows = ask(cluster, node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver'")
    pid = int(rows[0][0])
    os.kill(pid, signal.SIGSTOP)
    try:
        filler = f"SELECT pg_logical_emit_message(false, 'story', repeat('x', {1 << 20}))"
        ask(cluster, primary_of(cluster), f"{filler} FROM generate_series(1, 24)")
        wait_for(
            lambda: (node_of(cluster, node)["replication_lag_bytes"] or 0) > LAG_BYTES_MAX,
            SOON_S,
            f"it is known that node {node} lags",
        )
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def tagged_nofailover(cluster: LocalCluster, node: int) -> Iterator[None]:
    """By the node's own file, which is read when its daemon starts."""
    conf, primary = cluster.places.conf(node), primary_of(cluster)
    before = conf.read_text()

    def start_with(text: str, *, tagged: bool) -> None:
        cluster.kill_node(node)
        conf.write_text(text)
        cluster.spawn(node)
        wait_for(
            lambda: node_of(cluster, node, asked=primary)["nofailover"] is tagged,
            SOON_S,
            f"the group knows what node {node}'s own file says",
        )
        until_settled(cluster)
        # After the loss of a node it may be led from the primary's host, and moves away again.
        wait_for(
            lambda: not node_of(cluster, primary, asked=primary)["is_leader"],
            SOON_S,
            "the coordinator is on another host than the primary",
        )

    try:
        start_with(f"{before}nofailover = true\n", tagged=True)
        yield
    finally:
        start_with(before, tagged=False)


@pytest.mark.parametrize(
    ("unfit", "says"), [(behind, "bytes behind the primary"), (tagged_nofailover, "nofailover")]
)
def test_a_switchover_to_an_unfit_target_is_refused_and_names_a_fit_one(
    cluster: LocalCluster,
    unfit: Callable[[LocalCluster, int], AbstractContextManager[None]],
    says: str,
) -> None:
    until_settled(cluster)
    primary, (target, fit) = primary_of(cluster), replicas_of(cluster)
    with unfit(cluster, target):
        before = still(cluster)
        for node in (primary, target, fit):
            body = {"target_node": target}
            status, answer = cluster.api(node, "POST", "/cluster/failover", body, timeout_s=30)
            assert (status, answer["error"]) == (409, "no_candidate"), answer
            assert f"node {target} " in answer["message"]
            assert says in answer["message"]
            assert answer["hint"] == f"accepted now: node {fit}"
            ran = asked_of(cluster, node, "failover", "--target", target)
            assert (ran.code, ran.out) == (5, ""), ran
            assert says in ran.err
            assert f"accepted now: node {fit}" in ran.err
        assert still(cluster) == before
    until_settled(cluster)
    accepted = cluster.api(primary, "GET", "/cluster/status")[1]["data"]
    assert accepted["primary_node_id"] == primary
