"""Messages and entries as short words, for stories and traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgraft.core.config import describe
from pgraft.core.types import (
    Append,
    AppendReply,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    ReadReply,
    ReadRequest,
    Release,
    Renew,
    RenewReply,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)


def show_entry(entry: Entry) -> str:
    """`term/index` and what it carries."""
    where = f"{entry.term}/{entry.index}"
    if entry.kind is EntryKind.GRANT:
        assert entry.grant is not None
        return f"{where} grant epoch {entry.grant.epoch} to {entry.grant.holder}"
    if entry.kind is EntryKind.COMMAND:
        return f"{where} {entry.data.decode(errors='replace')!r}"
    if entry.config is not None:
        return f"{where} config: {describe(entry.config)}"
    if entry.ttl is not None:
        return f"{where} ttl of epoch {entry.ttl.epoch} {entry.ttl.ttl_ns // 1_000_000} ms"
    return f"{where} {entry.kind.name.lower()}"


def show_message(message: Message) -> str:
    """One message on one line; numbers that differ from run to run are left out."""
    return _SHOW[type(message)](message)


def _append(m: Append) -> str:
    entries = ", ".join(show_entry(entry) for entry in m.entries) or "nothing"
    return f"Append t{m.term} after {m.prev_term}/{m.prev_index} commit {m.commit}: {entries}"


def _append_reply(m: AppendReply) -> str:
    if m.ok:
        return f"AppendReply t{m.term} match {m.match}"
    return f"AppendReply t{m.term} rejects {m.rejected}, hint {m.hint_term}/{m.hint_index}"


def _vote_request(m: VoteRequest) -> str:
    kind = "PreVoteRequest" if m.pre else "VoteRequest"
    transfer = " transfer" if m.transfer else ""
    return f"{kind} t{m.term} last {m.last_term}/{m.last_index}{transfer}"


def _vote_reply(m: VoteReply) -> str:
    kind = "PreVoteReply" if m.pre else "VoteReply"
    suspect = ", clock suspect" if m.suspect else ""
    return f"{kind} t{m.term} {'yes' if m.granted else 'no'}{suspect}"


def _renew_reply(m: RenewReply) -> str:
    answer = f"ttl {m.ttl_ns // 1_000_000} ms" if m.ttl_ns else f"refused: {m.refusal}"
    return f"RenewReply epoch {m.epoch} {answer}"


_SHOW: dict[type, Callable[[Any], str]] = {
    Append: _append,
    AppendReply: _append_reply,
    VoteRequest: _vote_request,
    VoteReply: _vote_reply,
    Heartbeat: lambda m: f"Heartbeat t{m.term} round {m.round} commit {m.commit}",
    HeartbeatReply: lambda m: f"HeartbeatReply t{m.term} round {m.round}",
    InstallSnapshot: lambda m: f"InstallSnapshot t{m.term} {m.snapshot.term}/{m.snapshot.index}",
    TimeoutNow: lambda m: f"TimeoutNow t{m.term}",
    ReadRequest: lambda m: f"ReadRequest t{m.term}",
    ReadReply: lambda m: f"ReadReply t{m.term} at {m.index}",
    Renew: lambda m: f"Renew epoch {m.epoch}",
    RenewReply: _renew_reply,
    Release: lambda m: f"Release epoch {m.epoch} {m.evidence.decode(errors='replace')}",
}
