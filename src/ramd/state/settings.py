"""The replicated settings: their bounds, and which change of them counts.

Must not live here: what an order may ask for (`ramd.policy.syncorder`). Start reading at
`change_refusal`.
"""

from __future__ import annotations

from dataclasses import replace

from ramd.domain.model import ClusterState, Settings
from ramd.domain.sync import SyncSettings
from ramd.state.commands import ChangeSettings
from ramd.state.membership import MEMBERS_MAX

SETTINGS_ORDERS_MAX = 16
LAG_BYTES_MAX = (1 << 63) - 1
GRACE_MS_MAX = 3_600_000


def change_refusal(state: ClusterState, command: ChangeSettings) -> str:
    """Why `command` would change nothing; '' if it is acceptable."""
    if command.replaces not in (None, state.settings):
        return "the settings are no longer those that the order was made from"
    return settings_refusal(command.settings)


def settings_refusal(settings: Settings) -> str:
    """What is out of bounds; '' if nothing is."""
    if not 0 <= settings.maximum_lag_on_failover <= LAG_BYTES_MAX:
        return f"maximum_lag_on_failover is not 0 to {LAG_BYTES_MAX}"
    if not 0 <= settings.startup_grace_ms <= GRACE_MS_MAX:
        return f"startup_grace_ms is not 0 to {GRACE_MS_MAX}"
    if not 1 <= settings.num_sync_standbys <= SyncSettings.num_max:
        return f"num_sync_standbys is not 1 to {SyncSettings.num_max}"
    low, high = SyncSettings.timeout_ms_min, SyncSettings.timeout_ms_max
    if not low <= settings.sync_replication_timeout_ms <= high:
        return f"sync_replication_timeout_ms is not {low} to {high}"
    if len(settings.sync_standby_names) > MEMBERS_MAX:
        return f"sync_standby_names are more than {MEMBERS_MAX}"
    return ""


def with_settings(state: ClusterState, command: ChangeSettings) -> ClusterState:
    """The state after an acceptable ChangeSettings."""
    orders = state.settings_orders
    if command.operation:
        orders = (*orders, command.operation)[-SETTINGS_ORDERS_MAX:]
    return replace(state, settings=command.settings, settings_orders=orders)
