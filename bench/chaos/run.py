"""One run: form a cluster, let clients write, do what the plan says, heal, read, judge.

Lives here: the order of things, and watching the cluster meanwhile. Must not live here: the plan,
the faults themselves, the rules of the verdict. Start reading at `Run.whole`.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psycopg

from bench.chaos.availability import Begun
from bench.chaos.clients import Clients, make_tables
from bench.chaos.ending import read_final, set_restored
from bench.chaos.harm import Harm
from bench.chaos.history import History
from bench.chaos.load import Load
from bench.chaos.plan import Step, Terms, draw
from bench.chaos.report import Findings
from bench.chaos.verdict import gather, judge, judge_answers
from bench.chaos.witnesses import Witnesses
from bench.outside import complete
from ramd.postgres.account import owner_account
from ramd.postgres.binaries import find_postgres
from tools.local_cluster import ClusterError, LocalCluster, Ports, wait_until

POLL_S: Final = 0.1
FIRST_ACKS: Final = 50
FIRST_S: Final = 60.0
CALM_AFTER_S: Final = 2.0
"""How long writing goes on after all has healed."""
DECISIONS_EVERY_S: Final = 15.0
ASIDES_KEPT: Final = 3
LOSSES_MAY_BE: Final = frozenset({"lost", "value acknowledged twice", "counted out of order"})
"""With asynchronous replication: what a promoted replica had not received is gone, and a counter
goes back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for."""

    seed: int
    minutes: float
    terms: Terms
    nodes: int = 3
    asynchronous: bool = False
    faults_max: int = 0
    """0: as many as fit."""
    heal_s: float = 180.0
    rate: int = 50
    """Of pgbench, transactions per second; 0: none."""
    command: str = ""


class Run:
    """Everything of one run. `whole`, then `close`."""

    def __init__(self, options: Options, ports: Ports | None = None) -> None:
        self.options = options
        settings: dict[str, object] = {}
        if options.asynchronous:
            settings["synchronous_replication"] = "off"
        self.cluster = LocalCluster(ports=ports, settings=settings)
        self.nodes = tuple(range(1, options.nodes + 1))
        self.dsns = {node: self.cluster.dsn(node) for node in self.nodes}
        self.clients = Clients(self.dsns)
        self.harm = Harm(self.cluster, self.nodes, self._last_primary)
        self.findings = Findings(command=options.command)
        self.watch = Watch(self)

    @property
    def history(self) -> History:
        return self.clients.history

    def whole(self) -> None:
        """To the verdict; what goes wrong on the way stands in the findings, too."""
        self._form()
        load = self._load() if self.options.rate else None
        witnesses = Witnesses(self.dsns) if self.options.asynchronous else None
        self.findings.storm.from_s = time.monotonic()
        with self.clients, witnesses or contextlib.nullcontext():
            try:
                self._first_writes(load)
                self._storm()
                self._heal()
            except (ClusterError, RuntimeError) as error:
                self._fail(str(error))
            finally:
                self.findings.storm.until_s = self.findings.storm.until_s or time.monotonic()
                self.harm.switchovers.wait()
                if load is not None:
                    load.stop()
                    self.findings.around.pgbench = load.transactions
        self._judge(witnesses)

    def close(self, *, keep: bool) -> None:
        self.cluster.close(keep=keep)

    def say(self, words: str) -> None:
        """A line of the run's own log, by wall clock, to be read beside the daemons'."""
        line = f"{datetime.now(UTC):%H:%M:%S.%f}"[:-3] + f" {words}"
        print(line, flush=True)
        with (self.cluster.root / "chaos.log").open("a") as sink:
            sink.write(line + "\n")

    # --- the parts ------------------------------------------------------------------------------

    def _form(self) -> None:
        """Raises ClusterError, psycopg.Error."""
        self.cluster.start()
        self.cluster.create(len(self.nodes))
        self.cluster.wait_healthy(self.options.heal_s)
        if not self.options.asynchronous:
            self._await_set()
        primary = self.cluster.primary()
        assert primary is not None
        make_tables(self.dsns[primary])
        self.say(f"{len(self.nodes)} nodes in {self.cluster.root}, node {primary} is primary")

    def _await_set(self) -> None:
        count = len(self.nodes)
        if count > 2:
            wait_until(
                "commits wait for every replica that may confirm",
                lambda: set_restored(self.cluster, count),
                self.options.heal_s,
            )

    def _load(self) -> Load:
        account = owner_account(self.cluster.places.data_dir(1))
        ports = [self.cluster.ports.postgresql + node - 1 for node in self.nodes]
        load = Load(find_postgres(None).bin_dir, account, ports, self.options.rate)
        try:
            load.fill()
        except subprocess.SubprocessError as error:
            raise ClusterError(f"pgbench's tables were not made: {error}") from error
        return load

    def _first_writes(self, load: Load | None) -> None:
        if load is not None:
            load.start()
        wait_until("first writes", lambda: len(self.history.acks) > FIRST_ACKS, FIRST_S)
        self.findings.storm.from_s = time.monotonic()

    def _storm(self) -> None:
        """All faults. Raises ClusterError if it does not heal where that is waited for."""
        self.watch.storming = True
        until_s = self.findings.storm.from_s + self.options.minutes * 60
        steps = draw(self.options.seed, self.options.terms)
        for step in itertools.islice(steps, self.options.faults_max or None):
            if time.monotonic() >= until_s or self.watch.ended_early:
                break
            self._step(step)
            if step.settles:
                self._settle()
            self._pass(min(step.pause_s, until_s - time.monotonic()))

    def _step(self, step: Step) -> None:
        begun = Begun(at_s=time.monotonic(), kind=step.kind, role=step.role, number=step.number)
        said = self.harm.do(step)
        if said.startswith("nothing"):
            self.findings.storm.nothing += 1
        else:
            self.findings.storm.faults.append(begun)
        self.say(f"{step.number}: {begun.name}: {said}{', then health' if step.settles else ''}")

    def _settle(self) -> None:
        """Until nothing is left to undo and the cluster says it is healthy, and writes flow."""
        while self.harm.pending:
            self._pass(POLL_S)
            if self._hurries():
                return
        begun_s = time.monotonic()
        while not self._hurries():
            self._pass(POLL_S)
            status = self.cluster.status()
            healthy = status is not None and status["cluster_status"] == "healthy"
            # The daemons' picture may be a second old; the servers know.
            if healthy and self.clients.flows_since(begun_s) and complete(self.dsns):
                self.findings.storm.heals_s.append(time.monotonic() - begun_s)
                return
            if time.monotonic() - begun_s > self.options.heal_s:
                reason = status and status["reason"]
                raise ClusterError(f"not healed within {self.options.heal_s:g} s: {reason}")

    def _hurries(self) -> bool:
        """Somebody has asked for the end, and the faults are still going on."""
        return self.watch.storming and self.watch.ended_early

    def _heal(self) -> None:
        """Everything is undone, and all must come back."""
        self.watch.storming = False
        self.say("the last fault; everything is undone now")
        self.harm.undo_all()
        self._settle()
        self.findings.storm.until_s = time.monotonic()
        if not self.options.asynchronous:
            self._await_set()
        self._pass(CALM_AFTER_S)
        self.watch.collect()
        status = self.cluster.status()
        self.findings.around.epochs = int(status["epoch"]) if status else 0

    def _judge(self, witnesses: Witnesses | None) -> None:
        """Nobody writes any more."""
        findings, history = self.findings, self.history
        findings.around.switchovers = self.harm.switchovers.counted()
        findings.around.rules = self.watch.rules()
        try:
            final = read_final(self.dsns, self.options.heal_s)
        except (ClusterError, TimeoutError, psycopg.Error) as error:
            self._fail(f"at the end: {error}")
            findings.violations += judge_answers(history)
            return
        findings.judged = True
        found = judge(history, final)
        if witnesses is not None:
            findings.excused = [one for one in found if one.rule in LOSSES_MAY_BE]
            found = [one for one in found if one.rule not in LOSSES_MAY_BE]
            gone = gather("lost though seen on a replica", witnesses.missing(final))
            # Two hosts that are away at once may have been all that had it.
            told = found if self.options.terms.calm else findings.excused
            told += [gone] if gone else []
        findings.violations += found

    # --- meanwhile ------------------------------------------------------------------------------

    def _pass(self, seconds: float) -> None:
        """Let time go by: undo what is due, and look. Raises ClusterError, RuntimeError."""
        until_s = time.monotonic() + seconds
        while True:
            self.harm.undo_due()
            self.clients.check()
            self.watch.look()
            left_s = until_s - time.monotonic()
            if left_s <= 0 or self._hurries():
                return
            time.sleep(min(POLL_S, left_s))

    def _last_primary(self) -> int:
        last = self.clients.last()
        return last.node if last else self.nodes[0]

    def _fail(self, words: str) -> None:
        self.say(f"FAILED {words}")
        self.findings.failures.append(words)


class Watch:
    """What an operator has an eye on meanwhile."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.storming = False
        self.ended_early = False
        self._decisions: dict[tuple[str, str, int], str] = {}
        self._collected_s = 0.0

    def interrupt(self) -> None:
        """The first Ctrl-C ends the faults, a second one everything. Raises KeyboardInterrupt."""
        if not self.storming or self.ended_early:
            raise KeyboardInterrupt
        self.ended_early = True

    def look(self) -> None:
        """Daemons that ended without our doing are started again and told; room is made."""
        run = self._run
        for node in run.nodes:
            if not run.harm.down(node) and not run.cluster.processes.daemon_lives(node):
                status = run.cluster.processes.exit_status(node)
                words = f"node {node}'s daemon ended by itself, exit status {status}"
                run.findings.failures.append(words)
                run.say(f"FAILED {words}: {run.cluster.last_words(node)}")
                run.cluster.spawn(node)
        if time.monotonic() - self._collected_s > DECISIONS_EVERY_S and not run.harm.pending:
            self.collect()
            for node in run.nodes:
                _make_room(run.cluster.root, node)

    def collect(self) -> None:
        """The group keeps its last hundred decisions: fetch what is new."""
        self._collected_s = time.monotonic()
        for node in self._run.nodes:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
                status, answer = self._run.cluster.api(
                    node, "GET", "/cluster/decisions?limit=100", timeout_s=2
                )
                if status == 200:
                    for decision in answer["data"]["decisions"]:
                        key = (decision["at"], decision["rule"], decision["epoch"])
                        self._decisions[key] = decision["rule"]
                    return

    def rules(self) -> dict[str, int]:
        """How often each rule decided, most frequent first."""
        return dict(Counter(self._decisions.values()).most_common())


def _make_room(root: Path, node: int) -> None:
    """An operator removes old copies that were kept aside; the newest stay."""
    for pattern in (f"node{node}.aside-*", f"node{node}.ramd/divergent/*"):
        for old in sorted(root.glob(pattern))[:-ASIDES_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
