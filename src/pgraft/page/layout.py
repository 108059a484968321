"""Where everything stands in the page: the only definition of offsets; the C header comes from it.

Lives here: words, blocks, limits, the check sum, the text of `page_layout.h`. Must not live here:
files, mappings, clocks. Start reading at `BLOCKS`.

The page is an array of native 64-bit words in two halves with one writer each. A word that stands
alone is read and written by itself, as one aligned load or store: the lease is one, so no reader
ever waits for a writer that was stopped half-way. The words of a published block are read
under its sequence number: odd while it is being written, and a check sum as its last word.

`python -m pgraft.page.layout --write` writes the header again, `--check` compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

WORDS = 1024
WORD_BYTES = 8
PAGE_BYTES = WORDS * WORD_BYTES
MAGIC = int.from_bytes(b"PGRAFTPG", "little")
LAYOUT_VERSION = 2
READ_TRIES_MAX = 10_000
"""A reader of a published block gives up after so many torn or unfinished looks."""
START_MASK = 0xFFFF
"""The low bits of the lease word: the start number of the server it is given to. The bits above
are the deadline (CLOCK_BOOTTIME, ns), rounded down."""
SERVER_LOCK_BYTE = PAGE_BYTES // 2
"""Locked (F_OFD_SETLK) by the server for as long as one of its processes lives."""
MEMBERS_MAX = 9
MEMBER_WORDS = 24
NAME_BYTES = 32
HOST_BYTES = 128
_PRIME = 0x100000001B3
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One word, or a text of `count` words (UTF-8, zero-filled, ends with a zero byte)."""

    name: str
    what: str
    count: int = 1
    text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Neighbouring words from `start` on. `published`: the first is the sequence number, the last
    the check sum over those between them."""

    name: str
    start: int
    what: str
    fields: tuple[Field, ...]
    published: bool = False

    @property
    def words(self) -> int:
        return sum(field.count for field in self.fields)


def _word(name: str, what: str) -> Field:
    return Field(name=name, what=what)


def _text(name: str, size: int, what: str) -> Field:
    return Field(name=name, what=what, count=size // WORD_BYTES, text=True)


BLOCKS: tuple[Block, ...] = (
    Block(
        name="PAGE",
        start=0,
        what="who made the page; written once, by whichever side comes first",
        fields=(
            _word("MAGIC", "set last: without it the page is blank"),
            _word("LAYOUT", "version of this layout"),
            _word("BOOT", "boot of the host, folded: deadlines of another boot mean nothing"),
        ),
    ),
    Block(
        name="LEASE",
        start=8,
        what="alone on its cache line; alone decides whether a write is acknowledged",
        fields=(_word("LEASE", "deadline (BOOTTIME ns) above START_MASK, start number below"),),
    ),
    Block(
        name="DAEMON",
        start=16,
        what="the daemon's words that stand alone",
        fields=(
            _word("DAEMON_HEARTBEAT", "BOOTTIME ns"),
            _word("DAEMON_PID", "process id, 0 if it ended in order"),
            _word("RELEASED_EPOCH", "latch: no lease of this or an older epoch is ever used"),
            _word("DRAIN_AT", "from then on (BOOTTIME ns) a fenced server ends open xids; 0 never"),
        ),
    ),
    Block(
        name="STATE",
        start=32,
        what="the daemon's picture of the group",
        published=True,
        fields=(
            _word("STATE_SEQ", "sequence number"),
            _word("STATE_AT", "when it was published, BOOTTIME ns"),
            _word("NODE_ID", "this node"),
            _word("RAFT_ROLE", "0 unknown, 1 follower, 2 candidate, 3 leader, 4 learner"),
            _word("TERM", "Raft term"),
            _word("LEADER_ID", "Raft leader (coordinator), 0 if none is known"),
            _word("EPOCH", "present epoch, 0 before the first"),
            _word("PRIMARY_ID", "holder of the present epoch, 0 if none"),
            _word("TIMELINE", "timeline of the present epoch"),
            _word("COMMIT_INDEX", "of the group's log"),
            _word("APPLIED_INDEX", "of the group's log, on this node"),
            _word("QUORUM", "1 if a majority is in touch as far as this node knows"),
            _word("MESSAGES_TAKEN", "messages of the group processed since the daemon started"),
            _word("HEARTBEATS_SENT", "since the daemon started"),
            _word("ELECTIONS_BEGUN", "by this node since the daemon started"),
            _word("MEMBER_COUNT", "how many of the members below are filled in"),
            _text("CLUSTER_NAME", 64, "name of the cluster"),
            _text("DAEMON_VERSION", 32, "version of the daemon"),
            Field(
                name="MEMBERS",
                what="MEMBERS_MAX times MEMBER_WORDS words, see MEMBER",
                count=MEMBERS_MAX * MEMBER_WORDS,
            ),
            _word("STATE_CHECK", "check sum"),
        ),
    ),
    Block(
        name="SERVER",
        start=512,
        what="the postmaster's words, written at each start before the start number",
        fields=(
            _word("SERVER_START", "start number, 1 to START_MASK, another one at each start"),
            _word("POSTMASTER_PID", "process id"),
            _word("PAGE_INODE", "of the page that this server has mapped"),
            _word("SYSTEM_ID", "of its data directory"),
            _word("SERVER_VERSION", "server_version_num"),
            _word("STARTED_AT", "BOOTTIME ns"),
        ),
    ),
    Block(
        name="COUNTS",
        start=520,
        what="counted since the page was made, by atomic addition in any process of the server",
        fields=(
            _word("REFUSED_STATEMENTS", "statements that began as read-only because of the fence"),
            _word("REFUSED_COMMITS", "transactions refused at commit or prepare"),
            _word("DROPPED_ACKS", "flushed, but not acknowledged because the lease had ended"),
            _word("DROPPED_SYNC", "flushed, but not acknowledged: the wait for sync was cancelled"),
            _word("ENDED_SESSIONS", "sessions ended after the grace time"),
            _word("WEAK_COMMITS", "transactions let through without waiting for sync replicas"),
        ),
    ),
    Block(
        name="PROBE",
        start=528,
        what="the flush probe's words that stand alone (BOOTTIME ns, 0 never)",
        fields=(
            _word("FLUSH_BEGUN", "when the probe began its last flush of WAL"),
            _word("FLUSH_ENDED", "when its last flush ended; before FLUSH_BEGUN while one hangs"),
            _word("FLUSH_PLACE", "the probe's own place in allProcs, counted from 1; 0 none"),
        ),
    ),
    Block(
        name="PULSE",
        start=536,
        what="the worker's picture of the server, every 10 ms; LSNs are bytes, 0 unknown",
        published=True,
        fields=(
            _word("PULSE_SEQ", "sequence number"),
            _word("PULSE_AT", "when it was published, BOOTTIME ns"),
            _word("PULSE_START", "start number of the server the worker belongs to"),
            _word("WORKER_PID", "process id"),
            _word("IN_RECOVERY", "1 on a replica"),
            _word("INSERT_LSN", "end of WAL written to memory, on a primary"),
            _word("FLUSHED_LSN", "end of WAL on disk, on a primary"),
            _word("RECEIVED_LSN", "end of WAL flushed by the receiver, on a replica"),
            _word("REPLAYED_LSN", "end of WAL replayed, on a replica"),
            _word("RECEIVING", "1 while a WAL receiver says that it streams"),
            _word("REPLAYED_COMMIT_AT", "time of the last commit replayed, unix us"),
            _word("SERVER_TIMELINE", "being written, or being replayed"),
            _word("PARENT_TIMELINE", "on a primary: the one its own forked from, 0 if none"),
            _word("SWITCH_LSN", "on a primary: where its timeline begins, 0 if none"),
            _word("SESSIONS", "client sessions"),
            _word("OPEN_XIDS", "client sessions in a transaction that has an xid"),
            _word("ENFORCE", "0 if pgraft.enforce is off"),
            _word("FENCED", "1 if a write would not be acknowledged now; 0 on a replica"),
            _word("FENCED_AT", "since when, BOOTTIME ns, 0 if it is not"),
            _word("FENCE_LSN", "on a fenced primary: insert position read after the fence fell"),
            _word("TICKS", "how often the worker has published since it began"),
            _word("SYNC_GENERATION", "oldest pgraft.sync_generation of a walsender, checkpointer"),
            _word("SYNC_DEFINED", "1 if commits wait for synchronous replicas"),
            Field(
                name="STREAM_FLUSHED",
                what="what the stream through ramd_node_1 to _9 has confirmed on disk, 0 none",
                count=MEMBERS_MAX,
            ),
            _word("PULSE_CHECK", "check sum"),
        ),
    ),
)

MEMBER = (
    _word("ID", "node id"),
    _word("RAFT_PORT", "of the channel between daemons"),
    _word("POSTGRESQL_PORT", "of the server"),
    _word("FLAGS", "1 Raft leader, 2 primary, 4 heard lately"),
    _text("NAME", NAME_BYTES, "name of the node"),
    _text("HOST", HOST_BYTES, "address, cut off if longer"),
)
"""One member, offsets within its MEMBER_WORDS words."""

LEADER_FLAG, PRIMARY_FLAG, HEARD_FLAG = 1, 2, 4  # Raft leader


def _places() -> Iterator[tuple[str, int, Field]]:
    for block in BLOCKS:
        place = block.start
        for field in block.fields:
            yield field.name, place, field
            place += field.count


PLACES: dict[str, int] = {name: place for name, place, _ in _places()}
"""Word of every field by name."""
MEMBER_PLACES: dict[str, int] = {
    field.name: sum(other.count for other in MEMBER[:number]) for number, field in enumerate(MEMBER)
}
BY_NAME: dict[str, Block] = {block.name: block for block in BLOCKS}


def check_sum(words: Sequence[int]) -> int:
    """Check sum of a published block's words between sequence number and check sum."""
    total = len(words)
    for word in words:
        total = ((total ^ word) * _PRIME) & _MASK
    return total


def text_words(text: str, size: int) -> list[int]:
    """`text` as words of a text field of `size` bytes, cut off at a whole character."""
    raw = text.encode()[: size - 1].decode(errors="ignore").encode()
    raw = raw.ljust(size, b"\0")
    return [
        int.from_bytes(raw[place : place + WORD_BYTES], sys.byteorder)
        for place in range(0, size, WORD_BYTES)
    ]


def words_text(words: Sequence[int]) -> str:
    """The text in the words of a text field."""
    raw = b"".join(word.to_bytes(WORD_BYTES, sys.byteorder) for word in words)
    return raw.split(b"\0", 1)[0].decode(errors="replace")


def fold_boot(text: str) -> int:
    """A boot id (a UUID in text) as one word: its two halves, exclusive-or."""
    number = int(text.strip().replace("-", ""), 16)
    return (number >> 64) ^ (number & _MASK)


# --- the C header --------------------------------------------------------------------------------

HEADER = Path(__file__).parent.parent / "extension" / "page_layout.h"


def header() -> str:
    """The text of page_layout.h."""
    lines = [
        "/*",
        " * page_layout.h",
        " *\t\tWords of the page shared with the daemon.",
        " *",
        " * Generated from pgraft/page/layout.py by `python -m pgraft.page.layout --write`.",
        " */",
        "#ifndef PGRAFT_PAGE_LAYOUT_H",
        "#define PGRAFT_PAGE_LAYOUT_H",
        "",
        f"#define PGRAFT_PAGE_BYTES {PAGE_BYTES}",
        f"#define PGRAFT_MAGIC UINT64CONST(0x{MAGIC:016x})",
        f"#define PGRAFT_LAYOUT_VERSION {LAYOUT_VERSION}",
        f"#define PGRAFT_START_MASK UINT64CONST(0x{START_MASK:x})",
        f"#define PGRAFT_SERVER_LOCK_BYTE {SERVER_LOCK_BYTE}",
        f"#define PGRAFT_READ_TRIES_MAX {READ_TRIES_MAX}",
        f"#define PGRAFT_CHECK_PRIME UINT64CONST(0x{_PRIME:x})",
        f"#define PGRAFT_MEMBERS_MAX {MEMBERS_MAX}",
        f"#define PGRAFT_MEMBER_WORDS {MEMBER_WORDS}",
        f"#define PGRAFT_FLAG_LEADER {LEADER_FLAG}",
        f"#define PGRAFT_FLAG_PRIMARY {PRIMARY_FLAG}",
        f"#define PGRAFT_FLAG_HEARD {HEARD_FLAG}",
    ]
    for block in BLOCKS:
        lines += ["", f"/* {block.name}: {block.what} */"]
        place = block.start
        for field in block.fields:
            lines += _defines("PGRAFT_W_", field, place)
            place += field.count
    lines += ["", "/* MEMBER: offsets within the PGRAFT_MEMBER_WORDS words of one member */"]
    for field in MEMBER:
        lines += _defines("PGRAFT_M_", field, MEMBER_PLACES[field.name])
    return "\n".join([*lines, "", "#endif\t\t\t\t\t\t\t/* PGRAFT_PAGE_LAYOUT_H */"]) + "\n"


def _defines(prefix: str, field: Field, place: int) -> list[str]:
    lines = [f"#define {prefix}{field.name} {place}\t/* {field.what} */"]
    if field.text:
        lines.append(f"#define {prefix}{field.name}_BYTES {field.count * WORD_BYTES}")
    return lines


def main(arguments: list[str]) -> int:
    """`--write` or `--check`."""
    if arguments == ["--write"]:
        HEADER.write_text(header(), encoding="utf-8")
        return 0
    if arguments == ["--check"]:
        current = HEADER.read_text(encoding="utf-8") if HEADER.exists() else ""
        if current == header():
            return 0
        sys.stderr.write(f"{HEADER} is not what layout.py says: run with --write\n")
        return 1
    sys.stderr.write("python -m pgraft.page.layout --write | --check\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
