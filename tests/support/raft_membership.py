"""A lab whose members change: a leader, a learner that has caught up, a change that is made.

Lives here: what the tests of membership begin with. Must not live here: assertions about the rules
of membership. Start reading at `with_four`.
"""

from pgraft.core.types import Change, EventKind
from tests.support.raft_lab import Lab
from tests.support.raft_member import changed


def led(*voters: int, learners: tuple[int, ...] = ()) -> Lab:
    lab = Lab(*(voters or (1, 2, 3)), learners=learners)
    lab.elect(1)
    return lab


def told(lab: Lab, node: int, kind: EventKind) -> list[str]:
    return [event.detail for event in lab.members[node].events if event.kind is kind]


def with_four() -> Lab:
    """1 leads 2 and 3; 4 has joined as a learner and caught up."""
    lab = led()
    lab.join(4)
    lab.change(1, changed(add=[4]))
    lab.settle()
    lab.beat(1)
    assert lab.status(4).last_index == lab.status(1).last_index
    return lab


def make(lab: Lab, change: Change) -> None:
    """Change, and let all of it happen."""
    lab.change(1, change)
    lab.settle()
