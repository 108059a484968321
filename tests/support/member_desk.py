"""Orders about members over a state in memory: real commands, real rules, no group."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ramd.config.load import load_text
from ramd.domain.consensus import GroupStatus, MemberChange
from ramd.domain.decision import ClusterView, LeaseView, Voting
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState
from ramd.domain.observation import (
    DataKind,
    Heard,
    Observation,
    Position,
    ServerRole,
    ServerState,
)
from ramd.members.orders import Desk
from ramd.state.apply import apply
from ramd.state.commands import decode
from tests.support.fake_consensus import FakeConsensus, cluster, reign

SECRET = b"0123456789abcdef0123456789abcdef"
NOW_NS = 10_000_000_000
NOW_MS = 1_700_000_000_000


def local(members: int = 3) -> ClusterState:
    """A cluster on this host, led by node 1, as `cluster create` makes it."""
    state = cluster(reign(1, 1), system_id="7", members=members)
    known = tuple(
        replace(m, hostname="localhost", http_port=8000 + m.node_id) for m in state.members
    )
    return replace(state, members=known)


class Book(FakeConsensus):
    """Applies every command for real; changes of the group are noted, and made unless refused."""

    def __init__(self, state: ClusterState) -> None:
        super().__init__(1, state)
        self.cluster = state
        ids = tuple(m.node_id for m in state.members)
        self.voting = Voting(voters=ids, settled=True)
        self.removed = ""
        self.quorum = True
        self.changes: list[MemberChange] = []

    def status(self) -> GroupStatus:
        status = super().status()
        return replace(
            status, voting=self.voting, removed=self.removed, has_quorum=self.quorum, ready=True
        )

    async def propose(self, command: bytes, *, timeout_s: float) -> None:
        if self.failures:
            raise self.failures.popleft()
        decoded = decode(command)
        self.proposed.append(decoded)
        self.cluster = apply(self.cluster, decoded, self.cluster.applied_index + 1)

    async def change(self, change: MemberChange, *, timeout_s: float) -> None:
        self.changes.append(change)
        if self.failures:
            raise self.failures.popleft()
        voters = {*self.voting.voters, *change.promote} - {*change.remove}
        learners = {*self.voting.learners} - voters - {*change.remove}
        self.voting = Voting(
            voters=tuple(sorted(voters)), learners=tuple(sorted(learners)), settled=True
        )


class Office:
    """A desk with the book it writes into. `silent`: nodes that nobody has heard lately."""

    def __init__(self, state: ClusterState, tmp_path: Path, **conf: Any) -> None:
        self.book = Book(state)
        self.silent: set[int] = set()
        self.behind: set[int] = set()
        self.copies: dict[int, str] = {}
        text = f"postgresql_data_dir = {tmp_path}/node1\npostgresql_port = 5431\n"
        text += "raft_port = 7401\nhttp_port = 8001\ncluster_name = demo\n"
        text += "".join(f"{key} = {value}\n" for key, value in conf.items())
        self.desk = Desk(
            config=load_text(text, {}),
            consensus=self.book,
            view=self.view,
            until=self.until,
            unix_ms=lambda: NOW_MS,
            secret=SECRET,
            secret_file=tmp_path / "secret",
        )

    def view(self) -> ClusterView:
        """Everybody streams from node 1, except the silent and those that are behind."""
        state = self.book.cluster
        heard = {m.node_id: self.heard(m.node_id) for m in state.members}
        return ClusterView(
            now_ns=NOW_NS,
            me=1,
            term=1,
            coordinator_since_ns=0,
            started_ns=0,
            state=state,
            heard={n: h for n, h in heard.items() if n not in self.silent},
            lease=LeaseView(may_move_at_ns=None),
            voting=self.book.voting,
        )

    def heard(self, node_id: int) -> Heard:
        primary = node_id == 1
        observation = Observation(
            node_id=node_id,
            boot=1,
            taken_ns=0,
            data=DataKind.CLUSTER,
            state=ServerState.RUNNING,
            role=ServerRole.PRIMARY if primary else ServerRole.REPLICA,
            accepting=True,
            epoch_opened=1 if primary else 0,
            copy=self.copies.get(node_id, f"{node_id}a"),
            activity="" if primary else "following node 1",
            position=Position(timeline=1, lsn=Lsn(1000)),
            upstream=None if primary or node_id in self.behind else 1,
        )
        return Heard(observation=observation, received_ns=NOW_NS)

    async def until(self, check: Any) -> Any:
        """What `check` finds at once; nothing else happens here."""
        found = check()
        if found is None:
            raise TimeoutError
        return found
