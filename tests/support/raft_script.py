"""Stories about a Raft group as text: commands, and below each what happened.

A story starts with `#` lines that say what it shows and why. A line `> verb args` is a command;
the indented lines below it are what the group did. Times are ms, nodes numbers.

Lives here: the verbs and the reading of files. Must not live here: the group (see `raft_lab`).
Start reading at `play`; the verbs are the functions below `_VERBS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pgraft.core.config import describe
from pgraft.core.types import Index, ProposalRefused
from tests.support.raft_lab import MS, START_NS, Lab, recovered
from tests.support.raft_member import Letter, changed
from tests.support.raft_show import show_entry
from tests.support.raft_store import Image


class Story:
    """A group and what the verbs need beside it."""

    def __init__(self) -> None:
        self.lab = Lab(1)
        self.disks: dict[int, Image] = {}
        self.kept: dict[str, list[Letter]] = {}


Verb = Callable[[Story, list[str]], None]


def play(text: str) -> str:
    """The story with every command's output as it is now."""
    story = Story()
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith(("#", "> ")):
            continue
        if lines and lines[-1][0] != line[0]:
            lines.append("")
        lines.append(line)
        if line.startswith("> "):
            lines.extend(_run(story, line[2:].split()))
    return "\n".join(lines) + "\n"


def _run(story: Story, words: list[str]) -> list[str]:
    if words[0] not in _VERBS:
        raise ValueError(f"no verb {words[0]!r}; there are: {', '.join(sorted(_VERBS))}")
    try:
        _VERBS[words[0]](story, words[1:])
    except ProposalRefused as refusal:
        story.lab.trace.append(f"refused: {refusal.reason}")
    output = ["  " + line for line in story.lab.trace]
    story.lab.trace.clear()
    return output


def _nodes(story: Story, words: list[str]) -> None:
    """nodes 1 2 3 [2=1,1,2@5]: a fresh group; `n=terms@term` gives a node a log and a term."""
    voters = [int(word) for word in words if "=" not in word]
    logs = {}
    for word in words:
        if "=" in word:
            node, _, terms = word.partition("=")
            entries, _, term = terms.partition("@")
            logs[int(node)] = recovered(
                *(int(entry) for entry in entries.split(",")), term=int(term) if term else None
            )
    story.lab = Lab(*voters, logs=logs)
    story.lab.trace.append(f"{len(voters)} nodes")


def _expire(story: Story, words: list[str]) -> None:
    """expire n: the election timeout of n passes; nothing is delivered."""
    story.lab.expire(int(words[0]))


def _elect(story: Story, words: list[str]) -> None:
    """elect n: n becomes leader; told in one line."""
    story.lab.elect(int(words[0]))
    term = story.lab.status(int(words[0])).term
    story.lab.trace[:] = [f"{words[0]} leads term {term}"]


def _deliver(story: Story, words: list[str]) -> None:
    """deliver [a->b]: what is under way now, once; only one way if given."""
    lab = story.lab
    if not words:
        lab.deliver_all()
        return
    chosen = [x for x in lab.letters if f"{x.sender}->{x.to}" in words]
    lab.letters = [x for x in lab.letters if x not in chosen]
    for letter in chosen:
        lab.deliver(letter)


def _settle(story: Story, words: list[str]) -> None:
    """settle [quietly]: deliver until nothing is under way."""
    story.lab.settle()
    _hush(story, words)


def _beat(story: Story, words: list[str]) -> None:
    """beat n [quietly]: a heartbeat of leader n, and all that follows."""
    story.lab.beat(int(words[0]))
    _hush(story, words)


def _elapse(story: Story, words: list[str]) -> None:
    """elapse ms [quietly] [nodes...]: time passes (for these nodes), messages are delivered."""
    only = [int(word) for word in words[1:] if word != "quietly"]
    story.lab.elapse(float(words[0]), only=only or None)
    _hush(story, words)


def _propose(story: Story, words: list[str]) -> None:
    """propose n text: client asks n; nothing is delivered."""
    term, index = story.lab.propose(int(words[0]), words[1].encode())
    story.lab.trace.append(f"{words[0]}: took {term}/{index}")


def _grant(story: Story, words: list[str]) -> None:
    """grant n holder epoch: coordinator n grants."""
    story.lab.grant(int(words[0]), int(words[1]), int(words[2]))


def _renew(story: Story, words: list[str]) -> None:
    """renew n: holder n asks for one more ttl."""
    story.lab.renew(int(words[0]))


def _release(story: Story, words: list[str]) -> None:
    """release n: holder n fences itself and gives its epoch back."""
    story.lab.release(int(words[0]))


def _seal(story: Story, words: list[str]) -> None:
    """seal n epoch | seal n off: the host of coordinator n starts or ends comparing positions."""
    granter = story.lab[int(words[0])].granter
    if words[1] == "off":
        granter.unseal()
    else:
        granter.seal(int(words[1]))


def _lease(story: Story, words: list[str]) -> None:
    """lease: what every node holds, and when the coordinator may move the epoch."""
    lab = story.lab
    for node in sorted(lab.members):
        holder = lab[node].holder
        left = max(holder.deadline_ns - lab.now, 0) // MS
        if holder.epoch:
            lab.trace.append(f"{node}: holds epoch {holder.epoch}, {left} ms left")
        movable = lab[node].granter.may_move_at(lab.now)
        if movable is not None:
            lab.trace.append(f"{node}: may move it in {(movable - lab.now) // MS} ms")


def _ttl(story: Story, words: list[str]) -> None:
    """ttl n epoch ms: coordinator n changes how long renewals of an epoch last."""
    node, epoch, ttl_ms = (int(word) for word in words)
    story.lab.change_ttl(node, epoch, ttl_ms)


def _suspect(story: Story, words: list[str]) -> None:
    """suspect n [off]: the host of n finds its clock to run off, or sound again."""
    lab, node = story.lab, int(words[0])
    lab[node].clock_suspect("off" not in words, lab.now)
    lab.pump(node)


def _join(story: Story, words: list[str]) -> None:
    """join n [since]: a blank member n starts, admitted at index `since` if told."""
    story.lab.join(int(words[0]), since=int(words[1]) if len(words) > 1 else 0)


def _change(story: Story, words: list[str]) -> None:
    """change n [add:4,5] [promote:4] [demote:3] [remove:2]: leader n changes the membership."""
    wanted = {}
    for word in words[1:]:
        kind, _, nodes = word.partition(":")
        wanted[kind] = [int(node) for node in nodes.split(",")]
    story.lab.change(int(words[0]), changed(**wanted))


def _compact(story: Story, words: list[str]) -> None:
    """compact n: n keeps a snapshot of what it applied, and forgets what it stands for."""
    taken = story.lab.compact(int(words[0]))
    story.lab.trace.append(f"{words[0]}: snapshot at {taken.term}/{taken.index}")


def _fill(story: Story, words: list[str]) -> None:
    """fill n count: leader n commits that many commands; told in one line."""
    lab, node = story.lab, int(words[0])
    for number in range(int(words[1])):
        lab.propose(node, b"%d" % number)
        lab.settle()
    lab.trace[:] = [f"{node}: commit {lab.status(node).commit}"]


def _config(story: Story, words: list[str]) -> None:
    """config: the configuration in effect on every node, and whether it is committed."""
    lab = story.lab
    for node in sorted(lab.members):
        status = lab.status(node)
        how = "" if status.config == status.committed_config else " (not committed)"
        lab.trace.append(f"{node}: {describe(status.config)}{how}")


def _read(story: Story, words: list[str]) -> None:
    """read n context: a linearizable read at n."""
    story.lab.read(int(words[0]), int(words[1]))


def _transfer(story: Story, words: list[str]) -> None:
    """transfer n to: leader n hands over."""
    story.lab.transfer(int(words[0]), int(words[1]))


def _link(story: Story, words: list[str]) -> None:
    """link n peer up|down: the transport of n saw its link to peer change."""
    node, peer, state = words
    story.lab.link(int(node), int(peer), up=state == "up")


def _cut(story: Story, words: list[str]) -> None:
    """cut a b | cut a->b: cut both ways, or one."""
    if "->" in words[0]:
        sender, _, to = words[0].partition("->")
        story.lab.cuts.add((int(sender), int(to)))
    else:
        story.lab.cut(int(words[0]), int(words[1]))


def _isolate(story: Story, words: list[str]) -> None:
    """isolate n: cut n off from everybody."""
    story.lab.isolate(int(words[0]))


def _heal(story: Story, words: list[str]) -> None:
    """heal: every way is open."""
    story.lab.heal()


def _drop(story: Story, words: list[str]) -> None:
    """drop [a->b] [Append]: lose what is under way, all of it, one way, or one kind."""
    lab = story.lab
    lost = [
        x
        for x in lab.letters
        if not words or {f"{x.sender}->{x.to}", type(x.message).__name__} & set(words)
    ]
    lab.letters = [x for x in lab.letters if x not in lost]
    lab.trace.extend(f"lost {letter}" for letter in lost)


def _keep(story: Story, words: list[str]) -> None:
    """keep name [a->b]: put what is under way aside, to come late."""
    kept = [x for x in story.lab.letters if len(words) < 2 or f"{x.sender}->{x.to}" in words]
    story.lab.letters = [x for x in story.lab.letters if x not in kept]
    story.kept[words[0]] = kept
    story.lab.trace.extend(f"kept {letter}" for letter in kept)


def _late(story: Story, words: list[str]) -> None:
    """late name: now it comes; it may come again."""
    for letter in story.kept[words[0]]:
        story.lab.deliver(letter)


def _hold(story: Story, words: list[str]) -> None:
    """hold n: the disk of n hangs."""
    story.lab.hold(int(words[0]))


def _sync(story: Story, words: list[str]) -> None:
    """sync n: the disk of n works again."""
    story.lab.release_disk(int(words[0]))


def _crash(story: Story, words: list[str]) -> None:
    """crash n: the process of n dies; what was not synced is lost."""
    node = int(words[0])
    story.disks[node] = story.lab.crash(node)


def _start(story: Story, words: list[str]) -> None:
    """start n [released e]: n starts again from its disk, where its host had stored a release."""
    node = int(words[0])
    epoch = int(words[2]) if len(words) > 2 else 0
    story.lab.restart(node, story.disks.pop(node), released_epoch=epoch)


def _setback(story: Story, words: list[str]) -> None:
    """setback n last: n starts from a copy of its disk that ends at index `last`."""
    node, last = int(words[0]), int(words[1])
    disk = story.lab.crash(node).copy()
    del disk.entries[last:]
    disk.hard_state = replace(disk.hard_state, commit=Index(min(disk.hard_state.commit, last)))
    story.lab.restart(node, disk)


def _sleep(story: Story, words: list[str]) -> None:
    """sleep ms: time passes while everybody stands still."""
    story.lab.now += int(words[0]) * MS


def _tick(story: Story, words: list[str]) -> None:
    """tick n: n's timer fires."""
    story.lab.tick(int(words[0]))


def _status(story: Story, words: list[str]) -> None:
    """status: one line per node."""
    lab = story.lab
    for node in sorted(lab.members):
        s = lab.status(node)
        lab.trace.append(
            f"{node}: {s.role.value} term {s.term} leader {s.leader} "
            f"commit {s.commit} last {s.last_index}"
        )


def _log(story: Story, words: list[str]) -> None:
    """log: the log of every node."""
    for node in sorted(story.lab.members):
        entries = ", ".join(show_entry(entry) for entry in story.lab.log(node))
        story.lab.trace.append(f"{node}: {entries or 'empty'}")


def _time(story: Story, words: list[str]) -> None:
    """time: ms since the story began."""
    story.lab.trace.append(f"{(story.lab.now - START_NS) // MS} ms")


def _hush(story: Story, words: list[str]) -> None:
    if "quietly" in words:
        story.lab.trace.clear()


_VERBS: dict[str, Verb] = {
    "nodes": _nodes,
    "expire": _expire,
    "elect": _elect,
    "deliver": _deliver,
    "settle": _settle,
    "beat": _beat,
    "elapse": _elapse,
    "propose": _propose,
    "grant": _grant,
    "renew": _renew,
    "release": _release,
    "seal": _seal,
    "lease": _lease,
    "ttl": _ttl,
    "suspect": _suspect,
    "join": _join,
    "change": _change,
    "compact": _compact,
    "fill": _fill,
    "config": _config,
    "read": _read,
    "transfer": _transfer,
    "link": _link,
    "cut": _cut,
    "isolate": _isolate,
    "heal": _heal,
    "drop": _drop,
    "keep": _keep,
    "late": _late,
    "hold": _hold,
    "sync": _sync,
    "crash": _crash,
    "start": _start,
    "setback": _setback,
    "sleep": _sleep,
    "tick": _tick,
    "status": _status,
    "log": _log,
    "time": _time,
}
