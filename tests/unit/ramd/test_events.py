"""Every event has a sentence that its fields fill, and no field that logging itself uses."""

from __future__ import annotations

import logging
from dataclasses import MISSING, fields
from typing import Any

import pytest

from ramd import events, fetch_events, member_events, switch_events, sync_events
from ramd.events import Event, LeaseRefused, emit

ALL = [
    declared
    for module in (events, fetch_events, member_events, switch_events, sync_events)
    for declared in vars(module).values()
    if isinstance(declared, type) and issubclass(declared, Event)
    if declared.__module__ == module.__name__
]
DECLARED = [e for e in ALL if e is not Event]
RESERVED = {*vars(logging.makeLogRecord({})), "message", "asctime", "event", "taskName"}


def sample(kind: type[Event]) -> Event:
    values: dict[str, Any] = {f.name: 7 for f in fields(kind) if f.default is MISSING}
    return kind(**values)


@pytest.mark.parametrize("kind", DECLARED, ids=lambda e: e.__name__)
def test_template_is_filled_by_the_fields(kind: type[Event]) -> None:
    assert kind.template
    message = sample(kind).message()
    assert "{" not in message
    assert kind.level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)


@pytest.mark.parametrize("kind", DECLARED, ids=lambda e: e.__name__)
def test_no_field_collides_with_the_log_record(kind: type[Event]) -> None:
    assert not RESERVED & {f.name for f in fields(kind)}


def test_names_are_unique_snake_case() -> None:
    names = [kind.name() for kind in DECLARED]
    assert len(set(names)) == len(names)
    assert LeaseRefused.name() == "lease_refused"


def test_emit_makes_one_record_with_the_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    emit(LeaseRefused(epoch=4, why="its server stopped"))
    (record,) = caplog.records
    seen: Any = record
    assert (seen.event, seen.epoch, seen.why) == ("lease_refused", 4, "its server stopped")
    assert record.levelno == logging.ERROR
    assert record.getMessage() == LeaseRefused(epoch=4, why="its server stopped").message()


def test_percent_signs_in_fields_are_harmless(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    emit(LeaseRefused(epoch=4, why="100% full %s"))
    assert "100% full %s" in caplog.records[0].getMessage()


def test_events_below_the_level_cost_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "ramd")
    emit(sample(events.ProbeFailed))
    assert not caplog.records
