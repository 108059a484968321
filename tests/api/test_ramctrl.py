"""ramctrl against the real API server over a fake service: what a person sees, word for word."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ramd.domain.errors import Refused
from ramd.domain.service import CreateRequest, DestroyRequest, FailoverRequest
from tests.api import stories
from tests.api.harness import Api, serving
from tests.api.stories import NOW_NS, healthy, heard, replica_seen, with_heard
from tests.unit.ramctrl.cli import Ran, frozen_time, ramctrl

TOKEN = "a-token-of-the-test"
STATUS_AT_S = 1_700_000_000 + 300

STATUS = """\
healthy: primary node1 accepts writes, 2 of 2 replicas stream
cluster           demo (c0ffee)
primary           node 1, epoch 1, timeline 1
coordinator       node 2, term 3, quorum
failover          automatic, 0 so far, last change 5 min ago
commits wait for  nobody
last decision     first primary: node1 [first_primary]

ID  NAME   ROLE     STATE    ADDRESS         TL  LAG             SEEN       NOTE
1   node1  primary  running  127.0.0.1:5432  1   -               0.1 s ago
2   node2  replica  running  127.0.0.1:5433  1   0 B / 0.2 s     0.1 s ago
3   node3  replica  running  127.0.0.1:5434  1   4.0 kB / 0.2 s  0.1 s ago
"""
NODES_WITH_A_SILENT_ONE = """\
degraded: 2 of 3 nodes do their part

ID  NAME   ROLE     STATE    ADDRESS         TL       LAG          SEEN       NOTE
1   node1  primary  running  127.0.0.1:5432  1        -            0.1 s ago
2   node2  replica  running  127.0.0.1:5433  1        0 B / 0.2 s  0.1 s ago
3   node3  replica  unknown  127.0.0.1:5434  unknown  unknown      9.0 s ago  not heard for 9.0 s
"""
TEXT = """\
healthy: 3 of 3 nodes do their part
ID\tNAME\tROLE\tSTATE\tADDRESS\tTL\tLAG\tSEEN\tNOTE
1\tnode1\tprimary\trunning\t127.0.0.1:5432\t1\t-\t0.1 s ago\t
2\tnode2\treplica\trunning\t127.0.0.1:5433\t1\t0 B / 0.2 s\t0.1 s ago\t
3\tnode3\treplica\trunning\t127.0.0.1:5434\t1\t4.0 kB / 0.2 s\t0.1 s ago\t
"""
CREATED = """\
done: cluster demo created: 3 nodes
cluster id  c0ffee
primary     127.0.0.1:5432
replicas    127.0.0.1:5433, 127.0.0.1:5434
connect: psql -h 127.0.0.1 -p 5432 -U postgres -d postgres
"""
DESTROYED = """\
degraded: cluster demo destroyed: 2 servers stopped
kept aside: /data/node1.aside
not heard: node 3; it finishes when it sees the record
"""
FAILED_OVER = """\
done: node 1 → node 2
took            412 ms
without writes  unknown
epoch           2
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Api]:
    with serving(token=TOKEN) as api:
        yield api


@pytest.fixture
def api(served: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Api:
    served.service.story = healthy()
    served.service.now = NOW_NS
    served.service.fails = None
    served.service.asked.clear()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text(TOKEN, encoding="utf-8")
    conf = f"default_port = {served.port}\ndefault_auth_token_file = {tmp_path / 'token'}\n"
    (tmp_path / "ramctrl.conf").write_text(conf, encoding="utf-8")
    return served


def status(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Ran:
    with frozen_time(monkeypatch, STATUS_AT_S):
        return ramctrl(*arguments)


@pytest.mark.parametrize(
    "spelling",
    [["cluster", "status"], ["status"], ["show", "cluster"], ["cluster", "status", "--table"]],
)
def test_status(api: Api, monkeypatch: pytest.MonkeyPatch, spelling: list[str]) -> None:
    ran = status(monkeypatch, *spelling)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == STATUS


def test_exit_code_is_the_verdict(api: Api) -> None:
    api.service.story = stories.without_heard(healthy(), 3)
    assert ramctrl("cluster", "status").code == 1
    assert ramctrl("cluster", "health").code == 1
    api.service.story = stories.without_quorum(healthy())
    ran = ramctrl("cluster", "health")
    assert ran.code == 2
    assert ran.out.startswith("critical: no quorum")
    assert ramctrl("cluster", "status", "--json").code == 2


@pytest.mark.parametrize("spelling", [["nodes", "list"], ["node", "list"], ["show", "nodes"]])
def test_nodes_with_a_silent_one(api: Api, spelling: list[str]) -> None:
    api.service.story = with_heard(healthy(), heard(replica_seen(3), age_ms=9_000))
    ran = ramctrl(*spelling)
    assert ran.out == NODES_WITH_A_SILENT_ONE
    assert ran.code == 0


def test_text_for_pipes(api: Api) -> None:
    assert ramctrl("nodes", "list", "--format", "text").out == TEXT


def test_json_and_yaml_are_the_envelope(api: Api) -> None:
    as_json = json.loads(ramctrl("nodes", "list", "--format", "json").out)
    assert as_json["status"] == "success"
    assert [node["id"] for node in as_json["data"]["nodes"]] == [1, 2, 3]
    as_yaml = yaml.safe_load(ramctrl("--format=yaml", "cluster", "health").out)
    assert as_yaml["data"]["cluster_status"] == "healthy"
    assert as_yaml["data"]["replication_lag_ms"] == 250


@pytest.mark.parametrize("how", [["replica1"], ["--node", "replica1"], ["-n", "node2"], ["2"]])
def test_one_node(api: Api, how: list[str]) -> None:
    ran = ramctrl("nodes", "show", *how)
    assert ran.code == 0
    lines = dict(line.split("  ", 1) for line in ran.out.splitlines()[1:])
    assert lines["node"].strip() == "2 (node2)"
    assert lines["streams from"].strip() == "node 1"


def test_a_node_that_is_not_there(api: Api) -> None:
    ran = ramctrl("nodes", "show", "a?c")
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.startswith("error: there is no node 'a?c'\nhint: nodes: node1, node2, node3")


def test_create(api: Api, tmp_path: Path) -> None:
    api.service.story = stories.clusterless()
    ran = ramctrl(
        "cluster", "create", "--num-nodes", "3", "--primary-port", "6000",
        "--replica-ports", "6001, 6002", "--data-dir", "data", "--log-dir", "/var/log/pg",
    )  # fmt: skip
    assert (ran.code, ran.out, ran.err) == (0, CREATED, "")
    assert api.service.asked == [
        CreateRequest(
            num_nodes=3,
            primary_port=6000,
            replica_ports=(6001, 6002),
            data_dir=str(tmp_path / "data"),
            log_dir="/var/log/pg",
            actor="api 127.0.0.1",
        )
    ]


def test_create_that_is_refused(api: Api) -> None:
    api.service.fails = Refused("port 5433 is in use", code="port_in_use", hint="choose another")
    ran = ramctrl("cluster", "create")
    assert (ran.code, ran.out) == (5, "")
    assert ran.err == "error: port 5433 is in use\nhint: choose another\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["cluster", "create", "--num-nodes", "10"],
        ["cluster", "create", "--replica-ports", "a,b"],
        ["cluster", "create", "--host", "db1", "--data-dir", "relative"],
        ["cluster", "create", "--bogus"],
        ["cluster", "destroy", "--yes", "--remove-data"],
        ["nodes", "show"],
        ["nowhere"],
        ["--port", "0", "status"],
    ],
)
def test_wrong_usage_is_exit_code_2_and_asks_nobody(api: Api, arguments: list[str]) -> None:
    ran = ramctrl(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err
    assert api.service.asked == []


def test_destroy(api: Api) -> None:
    ran = ramctrl("cluster", "destroy", "--yes")
    assert (ran.code, ran.out, ran.err) == (0, DESTROYED, "")
    assert api.service.asked == [DestroyRequest(actor="api 127.0.0.1")]


def test_destroy_with_the_data(api: Api) -> None:
    assert ramctrl("cluster", "destroy", "-y", "--remove-data", "--cluster-name", "demo").code == 0
    wanted = DestroyRequest(remove_data=True, cluster_name="demo", actor="api 127.0.0.1")
    assert api.service.asked == [wanted]


def test_destroy_where_nobody_can_confirm(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        ran = ramctrl("cluster", "destroy")
    assert ran.code == 2
    assert "add --yes" in ran.err
    assert api.service.asked == []


@pytest.mark.parametrize(
    ("how", "target"),
    [([], None), (["--target", "3"], 3), (["--node", "replica2"], 3)],
)
def test_failover(api: Api, how: list[str], target: int | None) -> None:
    ran = ramctrl("cluster", "failover", *how)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == FAILED_OVER.replace("node 2", f"node {target or 2}")
    assert api.service.asked == [FailoverRequest(target=target, actor="api 127.0.0.1")]


def test_without_the_token(api: Api, tmp_path: Path) -> None:
    (tmp_path / "ramctrl.conf").unlink()
    ran = ramctrl("cluster", "status", "-u", f"http://127.0.0.1:{api.port}")
    assert ran.code == 3
    assert ran.err.startswith("error: a valid bearer token is required\nhint: ")
    with_file = ["--token-file", str(tmp_path / "token"), "--port", str(api.port)]
    assert ramctrl("cluster", "status", *with_file).code == 0


def test_before_a_cluster(api: Api) -> None:
    api.service.story = stories.clusterless()
    ran = ramctrl("status")
    assert ran.code == 5
    assert ran.err.startswith("error: this daemon is in no cluster\n")


def on_a_terminal(arguments: list[str], typed: bytes = b"", **environment: str) -> tuple[int, str]:
    """Exit code and output of `python -m ramctrl` with a terminal of 120 columns as its life."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", **environment}
    env.pop("NO_COLOR", None) if "NO_COLOR" not in environment else None
    child = subprocess.Popen(
        [sys.executable, "-m", "ramctrl", *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, env=env,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, typed)
    said = b""
    try:
        while part := os.read(ours, 65536):
            said += part
    except OSError:  # the terminal's other side has been closed: the child has ended
        pass
    finally:
        os.close(ours)
        code = child.wait(60)
    return code, said.decode()


def test_colours_on_a_terminal_only(api: Api) -> None:
    code, said = on_a_terminal(["cluster", "status"])
    assert code == 0
    assert "\x1b[32mhealthy" in said
    assert "\x1b[" not in on_a_terminal(["cluster", "status"], NO_COLOR="1")[1]
    assert "\x1b[" not in on_a_terminal(["cluster", "status", "--json"])[1]


@pytest.mark.parametrize(("typed", "code", "asked"), [(b"n\n", 1, 0), (b"y\n", 0, 1)])
def test_destroy_asks_on_a_terminal(api: Api, typed: bytes, code: int, asked: int) -> None:
    ended, said = on_a_terminal(["cluster", "destroy"], typed)
    assert "Destroy cluster demo with 3 nodes and put its data aside?" in said
    assert (ended, len(api.service.asked)) == (code, asked)


def test_start_is_light() -> None:
    """Neither the daemon's libraries nor rich are imported to ask a question."""
    code = (
        "import sys, ramctrl.__main__\n"
        "heavy = {'pydantic', 'fastapi', 'uvicorn', 'psycopg', 'rich', 'asyncio', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout == "[]\n"


def test_version_and_help() -> None:
    version = ramctrl("--version")
    assert (version.code, version.out.split()[0]) == (0, "ramctrl")
    assert ramctrl("--help").code == 0
    assert "before or after the command" in ramctrl("--help").out
