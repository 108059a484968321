"""A token is good for one node, once, for a while, in one cluster; else it is refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramd.domain.model import ClusterState, Invitation
from ramd.members import token
from ramd.state.apply import apply
from ramd.state.member_commands import AdmitMember, InviteMember, WithdrawInvitation
from tests.support.fake_consensus import cluster, member, reign

SECRET = b"0123456789abcdef0123456789abcdef"
NOW_MS = 1_700_000_000_000
INVITED = Invitation(
    member=member(4), nonce="a" * (2 * token.NONCE_BYTES), expires_unix_ms=NOW_MS + 1_000
)
ADDRESS = "host4:7404"


@pytest.fixture
def state() -> ClusterState:
    return apply(cluster(reign(1, 1)), InviteMember(invitation=INVITED, at_unix_ms=NOW_MS), 9)


def shown(state: ClusterState, **changes: object) -> str:
    facts: dict[str, object] = {
        "node_id": 4,
        "address": ADDRESS,
        "state": state,
        "secret": SECRET,
        "now_unix_ms": NOW_MS,
    }
    text = str(changes.pop("text", token.make(SECRET, state.cluster_id, INVITED)))
    return token.refusal(text, **(facts | changes))  # type: ignore[arg-type]


def test_an_invited_node_may_join(state: ClusterState) -> None:
    assert shown(state) == ""


def test_a_token_is_one_short_line(state: ClusterState) -> None:
    text = token.make(SECRET, state.cluster_id, INVITED)
    assert text.isprintable()
    assert " " not in text
    assert 32 <= len(text) <= token.CHARS_MAX
    assert token.read(text).node == 4


def test_every_way_to_be_refused_has_its_name(state: ClusterState) -> None:
    def code(of: ClusterState = state, **changes: object) -> str:
        return shown(of, **changes).partition(":")[0]

    own = token.make(SECRET, state.cluster_id, INVITED)
    altered = replace(INVITED, member=member(5))
    swapped = ".".join(
        (own.split(".")[0], token.make(SECRET, "c1", altered).split(".")[1], own.split(".")[2])
    )
    other = token.make(SECRET, state.cluster_id, replace(INVITED, nonce="b" * 24))
    assert code(text="") == "token_malformed"
    assert code(text="ramd1.x") == "token_malformed"
    assert code(text="ramd2" + own[5:]) == "token_malformed"
    assert code(text=own[:40]) == "token_malformed"
    assert code(text=own[:-1]) in {"token_malformed", "token_foreign"}
    assert code(text=own + "x" * 300) == "token_malformed"
    assert code(text=swapped) == "token_foreign"
    assert code(secret=b"another secret of another cluster") == "token_foreign"
    assert code(replace(state, cluster_id="c2"), text=own) == "token_foreign"
    assert code(node_id=5) == "token_node"
    assert code(now_unix_ms=NOW_MS + 1_000) == "token_expired"
    assert code(text=other) == "token_withdrawn"
    assert code(address="host4:7405") == "token_address"
    used = apply(state, AdmitMember(nonce=INVITED.nonce), 10)
    assert code(used) == "token_used"
    gone = apply(state, WithdrawInvitation(nonce=INVITED.nonce), 10)
    assert code(gone) == "token_withdrawn"


def test_a_refusal_never_repeats_the_token(state: ClusterState) -> None:
    own = token.make(SECRET, state.cluster_id, INVITED)
    for changes in ({"text": own[:40]}, {"secret": b"x" * 16}, {"now_unix_ms": NOW_MS * 2}):
        assert own[10:40] not in shown(state, **changes)


@given(st.text() | st.binary().map(lambda raw: f"ramd1.{token._text(raw)}.AAAA"))
def test_garbage_is_refused_whatever_it_is(text: str) -> None:
    refused = token.refusal(
        text,
        node_id=4,
        address=ADDRESS,
        state=cluster(reign(1, 1)),
        secret=SECRET,
        now_unix_ms=NOW_MS,
    )
    assert refused.startswith(("token_malformed: ", "token_foreign: "))
