"""Physical replication slots: one for each other member, on every server.

The primary's keep WAL for a replica that is away. A replica's are made ahead without a position
(restart_lsn NULL, so they keep nothing), which spares a new primary the wait. Start at `plan`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ramd.postgres.quote import literal
from ramd.postgres.session import Session, SessionError
from ramd.postgres.standbys import SLOT_PREFIX, slot_name

STATEMENT_TIMEOUT_MS = 10_000
OBJECT_IN_USE = "55006"
UNDEFINED_OBJECT = "42704"
DUPLICATE_OBJECT = "42710"

LIST = f"""
SELECT slot_name, active, restart_lsn IS NOT NULL, coalesce(wal_status, '') = 'lost'
  FROM pg_replication_slots
 WHERE slot_type = 'physical' AND slot_name ~ '^{SLOT_PREFIX}[0-9]+$'
"""

EVICT = """
DO $$
BEGIN
  FOR attempt IN 1..500 LOOP
    PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots
      WHERE slot_name = {name} AND active_pid IS NOT NULL;
    BEGIN
      PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots
        WHERE slot_name = {name};
      EXIT;
    EXCEPTION WHEN object_in_use THEN
      PERFORM pg_sleep(0.002);
    END;
  END LOOP;
END $$
"""
"""The receiver that is turned away is back within a moment, maybe sooner than a backend that waits
for the end of another one looks again (0.1 s). So it is tried without a pause, for a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One of RAMD's slots as the server has it."""

    name: str
    active: bool
    reserved: bool
    """It has a position and keeps WAL."""
    lost: bool = False
    """The WAL it stood for was removed; it can never be used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do, in this order. A name may be in both."""

    drop: tuple[str, ...]
    create: tuple[str, ...]
    evict: tuple[str, ...] = ()
    """To be dropped although somebody still streams through them."""


def plan(have: Iterable[Slot], wanted: Iterable[str], *, primary: bool) -> Plan:
    """Slots with a name of ours that nobody wants go; so do useless ones, and on a replica those
    left over from its time as primary, which would keep WAL for ever. An active one is in use and
    stays, except on a primary one of a node that is no member any more: whose daemon is dead, that
    server would stream for ever."""
    slots = {slot.name: slot for slot in have}
    names = sorted(set(wanted))
    bad = {
        slot.name
        for slot in slots.values()
        if not slot.active and (slot.lost or (slot.reserved and not primary))
    }
    unwanted = {name for name, slot in slots.items() if name not in names}
    evict = sorted(name for name in unwanted if primary and slots[name].active)
    drop = sorted({*bad, *(name for name in unwanted if not slots[name].active)})
    create = tuple(n for n in names if n not in slots or n in bad)
    return Plan(drop=tuple(drop), create=create, evict=tuple(evict))


async def ensure_slots(session: Session, members: Iterable[int], *, me: int, primary: bool) -> None:
    """Carry out the plan. A slot that is taken in the meantime is left for the next time."""
    rows = await session.query(LIST, timeout_ms=STATEMENT_TIMEOUT_MS)
    have = [
        Slot(name=row[0] or "", active=row[1] == "t", reserved=row[2] == "t", lost=row[3] == "t")
        for row in rows
    ]
    wanted = [slot_name(member) for member in members if member != me]
    todo = plan(have, wanted, primary=primary)
    reserve = "true" if primary else "false"
    statements = [
        *(EVICT.format(name=literal(name)) for name in todo.evict),
        *(f"SELECT pg_drop_replication_slot({literal(name)})" for name in todo.drop),
        *(
            f"SELECT pg_create_physical_replication_slot({literal(name)}, {reserve})"
            for name in todo.create
        ),
    ]
    for statement in statements:
        try:
            await session.query(statement, timeout_ms=STATEMENT_TIMEOUT_MS)
        except SessionError as error:
            if error.sqlstate not in (OBJECT_IN_USE, UNDEFINED_OBJECT, DUPLICATE_OBJECT):
                raise
