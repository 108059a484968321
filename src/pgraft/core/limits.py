"""Every bound of the consensus core in one place.

Lives here: numbers with their unit in the name and the reason beside them. Must not live here:
times (see `types.Timing`).
"""

from __future__ import annotations

APPEND_ENTRIES_MAX = 64
"""Entries in one Append."""

APPEND_BYTES_MAX = 256 * 1024
"""Estimated bytes of entries in one Append; one entry always fits, however large."""

ENTRY_BYTES_MAX = 512 * 1024
"""Bytes of one proposal; larger ones are refused."""

ENTRY_OVERHEAD_BYTES = 64
"""Counted for an entry beside its payload."""

INFLIGHT_APPENDS_MAX = 8
"""Appends sent to one peer and not acknowledged yet."""

UNCOMMITTED_ENTRIES_MAX = 1024
"""Entries a leader holds uncommitted before it refuses proposals."""

READS_MAX = 1024
"""Reads waiting for a round, and reads forwarded, each."""

RENEWALS_MAX = 8
"""Lease renewals waiting for a round; the holder asks again."""

BOOTS_MAX = 8
"""Runs of holders' daemons whose newest renewal is remembered."""

FAST_ELECTION_JITTER_NS = 20_000_000
"""A follower whose link to the leader broke campaigns within this time."""

AFTER_SYNC_MAX = 1024
"""Messages held back behind a batch that is not durable yet."""

SNAPSHOT_BYTES_MAX = 1 << 20
"""Bytes of the host's state in one snapshot; larger is refused."""

VOTERS_MAX = 7
"""Voters of one configuration, and of each half of a joint one."""

MEMBERS_MAX = 9
"""Voters and learners together."""

REMOVED_MAX = 32
"""Uuids of former members that are remembered."""

LEARNER_LAG_ENTRIES_MAX = 64
"""How far behind the end of the log a learner may be and still be promoted."""

SESSIONS_MAX = 256
"""Sessions that are remembered; the one that was silent longest is forgotten first."""

SESSION_OPEN_MAX = 1024
"""Serials of one session applied out of order and remembered one by one."""

TAIL_ENTRIES = 64
"""Entries before a snapshot that stay in memory, so that a peer that lags a little needs none."""

SNAPSHOT_RESEND_ELECTIONS = 5
"""Election timeouts after which a snapshot that was not acknowledged is sent again."""

LEAVING_ELECTIONS = 5
"""Election timeouts for which a peer still gets the log after its removal is committed."""

SUSPECT_CLOCK_FACTOR = 1.1
"""By how much longer a coordinator waits that cannot trust the clocks it would reckon with."""
