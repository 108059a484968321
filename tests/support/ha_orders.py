"""What people ask of a simulated cluster in the middle of a storm.

Must not live here: what goes wrong (`ha_faults`). Start reading at `Orders`.
"""

from __future__ import annotations

from typing import Any

from ramd.domain.model import Handover
from ramd.state.commands import ChangeSettings, RequestHandover
from tests.support.ha_members import invite, remove
from tests.support.ha_people import drawn_settings
from tests.support.ha_storm import Striker


class Orders(Striker):
    """Switchovers, settings, members. True if it was asked for."""

    def handover(self) -> bool:
        state = self.world.state()
        primary = self.world.primary()
        if state.reign is None or primary is None:
            return False
        target = self.rng.choice([None, *sorted(self.world.hosts)])
        if target == state.reign.node_id:
            target = None
        wanted = Handover(epoch=state.epoch, target=target, requested_by="storm")
        return self._order(RequestHandover(handover=wanted))

    def member_leaves(self) -> bool:
        """A person removes a node, whatever it has just been through."""
        state, reign = self.world.state(), self.world.state().reign
        others = [m.node_id for m in state.members if reign and m.node_id != reign.node_id]
        if len(others) < 2 or self.whole() < 3 or state.departures:
            return False
        remove(self.world, self.rng.choice(others))
        return True

    def member_joins(self) -> bool:
        """One that was removed comes back with blank state, or a new host is added; it may take
        the place of another one."""
        world, state = self.world, self.world.state()
        blank = [n for n in range(1, world.plan.size + 2) if state.member(n) is None]
        known = {invitation.member.node_id for invitation in state.invitations}
        # While all is well: what is known here of the members is the newest then.
        if world.settled() or not blank or known or state.departures or state.reign is None:
            return False
        others = [m.node_id for m in state.members if m.node_id != state.reign.node_id]
        replace = others and self.whole() > 2 and self.rng.random() < 0.3
        instead = self.rng.choice(others) if replace else None
        invite(world, self.rng.choice(blank), replaces=instead)
        return True

    def settings(self) -> bool:
        state = self.world.state()
        return state.formed and self._order(
            ChangeSettings(settings=drawn_settings(self.world, state.settings))
        )

    def _order(self, command: Any) -> bool:
        host = self.any_host()
        if host.daemon is None:
            return False
        host.daemon.actor.call(host.daemon.propose, command)
        return True
