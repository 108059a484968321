"""The only room that knows both vocabularies, pgraft's and ours.

Lives here: becoming a member (`join`), the handle on the group (`handle`), this node's copy of the
state (`state_copy`), keeping its lease (`lease`). Must not live here: decisions, SQL. Start
reading at `join.join`.
"""

from ramd.link.certificates import PeerTls
from ramd.link.handle import Link
from ramd.link.join import (
    RAFT_DIR,
    GroupOptions,
    JoinOptions,
    Membership,
    add_again,
    belongs,
    founded,
    join,
)
from ramd.link.recover import Survival, recover_alone, resume

__all__ = [
    "RAFT_DIR",
    "GroupOptions",
    "JoinOptions",
    "Link",
    "Membership",
    "PeerTls",
    "Survival",
    "add_again",
    "belongs",
    "founded",
    "join",
    "recover_alone",
    "resume",
]
