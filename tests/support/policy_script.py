"""Runs the failover stories of tests/scenarios/failover: commands in, decisions out.

A story is a text: comments, commands at the margin, and below each command what it printed,
indented. `python -m tests.support.policy_script --rewrite` writes the output anew, and
docs/decisions.md with it; the difference is for reviewers to read. Start reading at `Story.run`.

Verbs: cluster, member, settings, coordinator, node, lease, pass, decide, plan, rejoin, fork,
handover, record, explain; more in `policy_sync`. Each `do_*` method says what it takes.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ramd.domain.decision import (
    Directive,
    DropHandover,
    Fetch,
    FetchOrder,
    GrantTo,
    Hold,
    LeaseView,
    LocalFacts,
    Memory,
    MoveCoordinator,
    Seal,
    SealAttempt,
    StaySealed,
)
from ramd.domain.lsn import format_lsn, parse_lsn
from ramd.domain.model import (
    DecisionRecord,
    Handover,
    Member,
    Reign,
    Settings,
    StartMode,
)
from ramd.domain.observation import (
    Attempt,
    Fetched,
    Heard,
    Observation,
    SealReport,
)
from ramd.policy.decide import decide
from ramd.policy.explain import action_text, explain, rule_table, verdict_line
from ramd.policy.fetching import order_text, with_order
from ramd.policy.lineage import how_to_rejoin
from ramd.policy.plan import plan
from ramd.state.apply import apply_explained, apply_grant_explained
from ramd.state.commands import (
    CancelHandover,
    Command,
    GrantPayload,
    InitCluster,
    RecordFork,
    RecordSystem,
    RequestHandover,
)
from ramd.state.recovery import RecordRecovery
from tests.support.policy_sync import SyncVerbs, long_copy
from tests.support.policy_world import (
    BOOT_NS,
    FLAGS,
    MS,
    SYSTEM,
    World,
    attempt,
    changed,
    position,
)

ROOT = Path(__file__).resolve().parents[2]
STORIES = ROOT / "tests" / "scenarios" / "failover"
PAGE = ROOT / "docs" / "decisions.md"
INDENT = "    "


@dataclass(frozen=True)
class Words:
    """The words after a verb: `key=value` pairs, and the others in order."""

    plain: list[str]
    named: dict[str, str]

    @classmethod
    def of(cls, words: list[str]) -> Words:
        named = dict(word.split("=", 1) for word in words if "=" in word)
        return cls(plain=[word for word in words if "=" not in word], named=named)

    def number(self, key: str, default: int = 0) -> int:
        return int(self.named.get(key, default))


class Story(SyncVerbs):
    """One story being told; `run` yields its lines with fresh output."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.world = World()

    def run(self, text: str) -> Iterator[str]:
        """Every line of `text` except old output, with new output after each command."""
        for number, line in enumerate(text.splitlines(), start=1):
            if line.startswith(INDENT):
                continue
            yield line
            if not line.strip() or line.startswith("#"):
                continue
            verb, *words = shlex.split(line, comments=True)
            try:
                output = list(getattr(self, f"do_{verb}")(Words.of(words)) or ())
            except Exception as error:
                raise AssertionError(f"{self.name}:{number}: {line}: {error!r}") from error
            yield from (INDENT + text for text in output)

    # --- the cluster -------------------------------------------------------------------------

    def do_cluster(self, words: Words) -> Iterator[str]:
        """cluster SIZE [grace=MS]: formed, no primary yet; the coordinator is node 3."""
        members = tuple(
            Member(
                node_id=n,
                name=f"node{n}",
                hostname=f"host{n}",
                postgresql_port=5432,
                raft_port=7400,
                http_port=8008,
            )
            for n in range(1, int(words.plain[0]) + 1)
        )
        settings = Settings(startup_grace_ms=words.number("grace", 30_000))
        self.world.me = len(members)
        yield from self._apply(
            InitCluster(cluster_id="c", cluster_name="c", members=members, settings=settings)
        )

    def do_primary(self, words: Words) -> Iterator[str]:
        """primary NODE [timeline=N]: epoch 1 long since begun there, its lease renewed."""
        node_id, timeline = int(words.plain[0]), words.number("timeline", 1)
        grant = GrantTo(node_id=node_id, epoch=1, timeline=timeline, start=StartMode.OPEN)
        yield from self._grant(grant, "first_primary")
        yield from self._apply(RecordSystem(system_id=SYSTEM))
        self.world.memory = Memory(served_epoch=1)
        self.do_pass(Words.of(["100000"]))
        self.do_lease(Words.of(["3000"]))

    def do_member(self, words: Words) -> None:
        """member NODE [priority=N] [nofailover] [nosync]: tags."""
        node_id = int(words.plain[0])
        self.world.state = replace(
            self.world.state,
            members=tuple(
                replace(
                    m,
                    priority=words.number("priority", m.priority),
                    nofailover="nofailover" in words.plain,
                    nosync="nosync" in words.plain,
                )
                if m.node_id == node_id
                else m
                for m in self.world.state.members
            ),
        )

    def do_coordinator(self, words: Words) -> None:
        """coordinator NODE [restarted]: another node coordinates, in the next term; `restarted`:
        its daemon has just started and remembers nothing."""
        world = self.world
        world.me, world.term, world.since_ns = int(words.plain[0]), world.term + 1, world.now_ns
        world.sealing, world.attempts, world.directive = None, 0, None
        if "restarted" in words.plain:
            world.heard.clear()
            world.memory = Memory()
            # Daemon start is the epoch of this world's clock.
            world.now_ns = world.since_ns = BOOT_NS

    def do_handover(self, words: Words) -> Iterator[str]:
        """handover [NODE] [loss=accepted]: a person asks for it."""
        target = int(words.plain[0]) if words.plain else None
        loss = "loss" in words.named
        wanted = Handover(epoch=self.world.state.epoch, target=target, accept_loss=loss)
        yield from self._apply(RequestHandover(handover=wanted))

    def do_recovered(self, words: Words) -> Iterator[str]:
        """recovered NODE: a person had NODE go on alone."""
        self.do_coordinator(Words.of([*words.plain, "restarted"]))
        yield from self._apply(RecordRecovery(cluster_id="c2", survivor=int(words.plain[0])))

    def do_fork(self, words: Words) -> Iterator[str]:
        """fork EPOCH LSN: its primary reports where its timeline begins."""
        epoch = int(words.plain[0])
        reign = next(r for r in self.world.state.reigns if r.epoch == epoch)
        parent, lsn = reign.parent_timeline or 0, parse_lsn(words.plain[1])
        yield from self._apply(RecordFork(epoch=epoch, parent_timeline=parent, fork_lsn=lsn))

    def do_record(self, words: Words) -> Iterator[str]:
        """record: the reigns."""
        for reign in self.world.state.reigns:
            fork = "no fork recorded" if reign.fork_lsn is None else format_lsn(reign.fork_lsn)
            parent = f"left timeline {reign.parent_timeline} at {fork}"
            origin = parent if reign.parent_timeline else "opened"
            yield f"epoch {reign.epoch}: node {reign.node_id}, timeline {reign.timeline}, {origin}"

    # --- facts -------------------------------------------------------------------------------

    def do_node(self, words: Words) -> None:
        """node N [silent|never|blank|foreign|primary|replica|crashed|stopped|hung|starting]
        [at=LSN@TL] [up=N] [opened=EPOCH] [failures=N] [system=ID] [sealed=LSN@TL [under=T.N]
        [epoch=E] [fetched=N[:WHY]]] [copy=COPY] [fence=KIND] [fed=MS]: what is heard of it.
        `sealed` alone is under the attempt under way; `fed`: so long ago its receiver got
        something; at=none: it has no position."""
        node_id = int(words.plain[0])
        world = self.world
        world.silent.discard(node_id)
        if "silent" in words.plain:
            world.silent.add(node_id)
            return
        blank = Observation(node_id=node_id, boot=1, taken_ns=0)
        heard = world.heard.get(node_id)
        seen = heard.observation if heard else blank
        changes: dict[str, Any] = {}
        for word in words.plain[1:]:
            changes |= FLAGS[word]
        for key in ("at", "up", "opened", "failures", "system", "fence", "fed"):
            if key in words.named:
                changes |= changed(key, words.named[key])
        changes["copy"] = long_copy(words.named.get("copy", f"{node_id}a"))
        if "sealed" in words.named:
            changes |= self._sealed(words, changes["copy"])
        seen = replace(seen, **changes)
        world.heard[node_id] = Heard(observation=seen, received_ns=world.now_ns)

    def _sealed(self, words: Words, copy: str) -> dict[str, Any]:
        world, at = self.world, position(words.named["sealed"])
        if "under" in words.named:
            under = attempt(words.named["under"])
        else:
            assert world.sealing is not None, "no attempt is under way"
            under = world.sealing.attempt
        epoch = words.number("epoch", world.state.epoch)
        which, _, why = words.named.get("fetched", "").partition(":")
        fetched = None
        if which:
            begun = world.sealing.fetches if world.sealing else ()
            source = next(b.order.source for b in begun if b.order.number == int(which))
            upto = None if why else at.lsn
            fetched = Fetched(number=int(which), source=source, upto=upto, why=why)
        report = SealReport(epoch=epoch, attempt=under, position=at, copy=copy, fetched=fetched)
        return {"sealed": report, "position": at, "upstream": None}

    def do_lease(self, words: Words) -> None:
        """lease MS (may move then) | out | released [end=LSN[@TL]] [why=TEXT] [doubt=TEXT]
        [holders=N,N] [stands]."""
        what = words.plain[0]
        now_ns = self.world.now_ns
        if what == "released":
            end, _, timeline = words.named.get("end", "").partition("@")
            self.world.lease = LeaseView(
                may_move_at_ns=self.world.lease.may_move_at_ns,
                released=True,
                release_lsn=parse_lsn(end) if end else None,
                release_timeline=int(timeline) if timeline else None,
                release_reason=words.named.get("why", ""),
                doubt=words.named.get("doubt", ""),
                holders=tuple(int(n) for n in words.named.get("holders", "").split(",") if n),
                stands_by="stands" in words.plain,
            )
        else:
            left_ns = 0 if what == "out" else int(what) * MS
            self.world.lease = LeaseView(may_move_at_ns=now_ns + left_ns)

    def do_pass(self, words: Words) -> None:
        """pass MS: time goes by."""
        self.world.now_ns += int(words.plain[0]) * MS

    # --- questions ---------------------------------------------------------------------------

    def do_decide(self, words: Words) -> Iterator[str]:
        """decide: one beat of the coordinator, and what it does is done."""
        world = self.world
        view = world.view()
        decision = decide(view)
        yield f"{decision.rule}: {action_text(decision.action)}"
        yield decision.reason
        yield from (verdict_line(verdict) for verdict in decision.candidates)
        wake_ms = ((decision.wake_at_ns or 0) - world.now_ns) // MS
        if wake_ms != 1000:
            yield f"looks again in {wake_ms} ms"
        match decision.action:
            case Hold(follow=True):
                self._follow()
            case Seal(epoch=epoch, attempt=under):
                world.attempts = under.number
                world.sealing = SealAttempt(epoch=epoch, attempt=under, begun_ns=world.now_ns)
                world.directive = Directive(epoch=epoch, attempt=under, sealed=True)
            case Fetch(order=order):
                self._fetch(order)
            case GrantTo() as grant:
                yield from self._grant(grant, decision.rule)
            case MoveCoordinator():
                world.transfer_ns = world.now_ns
            case DropHandover(epoch=epoch):
                yield from self._apply(CancelHandover(epoch=epoch, reason=decision.reason))

    def do_plan(self, words: Words) -> Iterator[str]:
        """plan NODE [lease=EPOCH] [released=EPOCH] [opened=EPOCH] [seal=T.N] [told=T.N[/EPOCH]
        [told_seal]] [apart] [adopting] [guarded] [yielding=EPOCH]: that node's goal; `told`
        overrides the directive, `guarded`: its server checks the lease itself."""
        world, node_id = self.world, int(words.plain[0])
        seal, told = words.named.get("seal"), words.named.get("told")
        facts = LocalFacts(
            me=node_id,
            now_ns=world.now_ns,
            lease_epoch=words.number("lease"),
            lease_deadline_ns=world.now_ns + MS if words.number("lease") else 0,
            released_epoch=words.number("released"),
            opened_epoch=words.number("opened"),
            in_touch="apart" not in words.plain,
            sealed_attempt=attempt(seal) if seal else None,
            self_fenced="guarded" in words.plain,
            adopt_until_ns=world.now_ns + MS if "adopting" in words.plain else 0,
            yielding_epoch=words.number("yielding"),
        )
        directive = world.directive
        if told:
            under, _, epoch = told.partition("/")
            directive = Directive(
                epoch=int(epoch or world.state.epoch),
                attempt=attempt(under),
                sealed="told_seal" in words.plain,
            )
        blank = Observation(node_id=node_id, boot=1, taken_ns=0)
        heard = world.heard.get(node_id)
        goal = plan(world.state, directive, facts, heard.observation if heard else blank)
        yield str(goal)
        if isinstance(goal, StaySealed) and goal.fetch is not None:
            yield order_text(goal.fetch)

    def do_rejoin(self, words: Words) -> Iterator[str]:
        """rejoin NODE [LSN@TL]: how a node with that end of WAL gets back."""
        at = position(words.plain[1]) if len(words.plain) > 1 else None
        advice = how_to_rejoin(self.world.state.reigns, at, me=int(words.plain[0]))
        yield f"{advice.how}: {advice.reason}"

    def do_explain(self, words: Words) -> Iterator[str]:
        """explain: what would happen now, in words."""
        yield from explain(self.world.view()).lines

    # --- what follows ------------------------------------------------------------------------

    def _fetch(self, order: FetchOrder) -> None:
        world = self.world
        assert world.sealing is not None
        world.sealing = with_order(world.sealing, order, world.now_ns)
        assert world.directive is not None
        world.directive = replace(world.directive, fetch=order)

    def _follow(self) -> None:
        world = self.world
        world.sealing = None
        under = Attempt(term=world.term, number=world.attempts)
        world.directive = Directive(epoch=world.state.epoch, attempt=under, sealed=False)

    def _grant(self, grant: GrantTo, rule: str) -> Iterator[str]:
        world = self.world
        reign = Reign(
            epoch=grant.epoch,
            node_id=grant.node_id,
            timeline=grant.timeline,
            start=grant.start,
            parent_timeline=grant.parent_timeline,
            seal_lsn=grant.seal_lsn,
        )
        record = DecisionRecord(epoch=grant.epoch, rule=rule, action="grant", reason="")
        applied = apply_grant_explained(
            world.state,
            grant.node_id,
            grant.epoch,
            GrantPayload(reign=reign, record=record, sync=grant.sync),
            world.state.applied_index + 1,
        )
        world.state = applied.state
        world.lease = LeaseView(may_move_at_ns=world.now_ns + 3000 * MS)
        if applied.refusal:
            yield f"refused: {applied.refusal}"

    def _apply(self, command: Command) -> Iterator[str]:
        world = self.world
        applied = apply_explained(world.state, command, world.state.applied_index + 1)
        world.state = applied.state
        if applied.refusal:
            yield f"refused: {applied.refusal}"


def retold(text: str, name: str = "story") -> str:
    """`text` with fresh output. Raises AssertionError with `name` and line if a command fails."""
    return "".join(line + "\n" for line in Story(name).run(text))


def main(arguments: list[str]) -> int:
    """Check the stories, or rewrite them and the page of rules. 1 if something differs."""
    rewrite = "--rewrite" in arguments
    different = 0
    for path in (*sorted(STORIES.glob("*.txt")), PAGE):
        text = rule_table() if path == PAGE else retold(path.read_text(), path.name)
        if path.exists() and path.read_text() == text:
            continue
        different += 1
        sys.stdout.write(f"{path}\n")
        if rewrite:
            path.write_text(text)
    return 1 if different and not rewrite else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
