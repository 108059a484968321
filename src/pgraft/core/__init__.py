"""The Raft algorithm and the primary lease, without any input or output.

Start reading at `pgraft.core.raft.Raft`, then `messages`, `election`, `replication`, `membership`,
`lease`. Nothing here reads a clock, a file, a socket or a random source: time (CLOCK_BOOTTIME ns),
messages and a seeded `random.Random` are handed in, and work comes out as `Ready` values.

The host's duties, after every input (every method of `Raft` that takes a time, and what it calls on
`holder` and `granter`): take `ready()` until it returns None, and for each Ready, in this order:

1. send `send_now`;
2. if `token` is not None, hand `snapshot`, `truncate_from`, `entries` and `hard_state` to the disk
   as one batch with one sync (a batch is never empty). When it and every batch before it are
   durable: send its `send_after_sync` and call `persisted(token, now)`. Without a token
   `send_after_sync` is empty. Votes, vote requests and acknowledgements leave only this way, or in
   the `send_now` of a Ready taken when nothing is in flight;
3. put `snapshot`, if there is one, in the place of the host's state; then apply `committed` at once
   and in order; the core takes entries for applied from the moment they are handed out. A grant
   whose epoch is not the applied epoch + 1 is void: `apply` ignores it;
4. answer `reads` whose `index` is applied, tell `events`.

Compaction: when all that was handed out is applied, `snapshot(data)`; save it *behind* the batches
handed out before (it must not be durable before the entries it stands for); then `compacted`. What
storage then finds at a start is that snapshot and the entries after it.

The next Ready may be taken while batches are in flight. A crash may lose batches that are not
durable, last ones first. A failed sync is the end of the process.

`tick` is called at or after `next_deadline()`. Deadlines are never further away than one heartbeat,
so a gap of more than an election timeout between ticks tells the core that its process stood still:
then it neither campaigns nor judges anybody's silence before it has listened again.

Primary lease. `granter` (the coordinator's half): `may_move_at`, `seal`, `unseal`, `released`.
`holder` (the half of the node that was granted the epoch): `renew` every ttl/10, `deadline_ns`,
`release`. The host stores `released_epoch` before it calls `release`.

Errors: `ProposalRefused` with one stable word, for the caller to handle. `SafetyViolation` and
`AssertionError`: stop the process; nothing it believes can be trusted.
"""
