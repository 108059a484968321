"""Settings are replaced whole, so only by an order that was made from the present ones."""

from dataclasses import replace

from ramd.domain.model import Settings
from ramd.state.apply import apply, apply_explained
from ramd.state.commands import ChangeSettings
from ramd.state.settings import SETTINGS_ORDERS_MAX
from tests.support.fake_consensus import cluster, reign

LED = cluster(reign(1, 1))


def test_settings_made_from_others_than_the_present_ones_are_refused() -> None:
    """Of two orders made from the same settings, only the first is in the log in time."""
    first = replace(LED.settings, num_sync_standbys=2)
    second = replace(LED.settings, enforce_sync_standbys=True)
    made = ChangeSettings(settings=first, replaces=LED.settings, operation="a")
    late = ChangeSettings(settings=second, replaces=LED.settings, operation="b")
    after = apply(LED, made, 9)
    assert (after.settings, after.settings_orders) == (first, ("a",))
    assert "no longer" in apply_explained(after, late, 10).refusal
    assert apply(after, late, 10) == replace(after, applied_index=10)
    assert apply(after, ChangeSettings(settings=second), 10).settings_orders == ("a",)


def test_only_the_last_orders_of_settings_are_kept() -> None:
    state, made = LED, SETTINGS_ORDERS_MAX + 3
    for n in range(made):
        state = apply(state, ChangeSettings(settings=Settings(), operation=str(n)), 10 + n)
    assert state.settings_orders == tuple(str(n) for n in range(3, made))
