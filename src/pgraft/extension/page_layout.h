/*
 * page_layout.h
 *		Words of the page shared with the daemon.
 *
 * Generated from pgraft/page/layout.py by `python -m pgraft.page.layout --write`.
 */
#ifndef PGRAFT_PAGE_LAYOUT_H
#define PGRAFT_PAGE_LAYOUT_H

#define PGRAFT_PAGE_BYTES 8192
#define PGRAFT_MAGIC UINT64CONST(0x4750544641524750)
#define PGRAFT_LAYOUT_VERSION 2
#define PGRAFT_START_MASK UINT64CONST(0xffff)
#define PGRAFT_SERVER_LOCK_BYTE 4096
#define PGRAFT_READ_TRIES_MAX 10000
#define PGRAFT_CHECK_PRIME UINT64CONST(0x100000001b3)
#define PGRAFT_MEMBERS_MAX 9
#define PGRAFT_MEMBER_WORDS 24
#define PGRAFT_FLAG_LEADER 1
#define PGRAFT_FLAG_PRIMARY 2
#define PGRAFT_FLAG_HEARD 4

/* PAGE: who made the page; written once, by whichever side comes first */
#define PGRAFT_W_MAGIC 0	/* set last: without it the page is blank */
#define PGRAFT_W_LAYOUT 1	/* version of this layout */
#define PGRAFT_W_BOOT 2	/* boot of the host, folded: deadlines of another boot mean nothing */

/* LEASE: alone on its cache line; alone decides whether a write is acknowledged */
#define PGRAFT_W_LEASE 8	/* deadline (BOOTTIME ns) above START_MASK, start number below */

/* DAEMON: the daemon's words that stand alone */
#define PGRAFT_W_DAEMON_HEARTBEAT 16	/* BOOTTIME ns */
#define PGRAFT_W_DAEMON_PID 17	/* process id, 0 if it ended in order */
#define PGRAFT_W_RELEASED_EPOCH 18	/* latch: no lease of this or an older epoch is ever used */
#define PGRAFT_W_DRAIN_AT 19	/* from then on (BOOTTIME ns) a fenced server ends open xids; 0 never */

/* STATE: the daemon's picture of the group */
#define PGRAFT_W_STATE_SEQ 32	/* sequence number */
#define PGRAFT_W_STATE_AT 33	/* when it was published, BOOTTIME ns */
#define PGRAFT_W_NODE_ID 34	/* this node */
#define PGRAFT_W_RAFT_ROLE 35	/* 0 unknown, 1 follower, 2 candidate, 3 leader, 4 learner */
#define PGRAFT_W_TERM 36	/* Raft term */
#define PGRAFT_W_LEADER_ID 37	/* Raft leader (coordinator), 0 if none is known */
#define PGRAFT_W_EPOCH 38	/* present epoch, 0 before the first */
#define PGRAFT_W_PRIMARY_ID 39	/* holder of the present epoch, 0 if none */
#define PGRAFT_W_TIMELINE 40	/* timeline of the present epoch */
#define PGRAFT_W_COMMIT_INDEX 41	/* of the group's log */
#define PGRAFT_W_APPLIED_INDEX 42	/* of the group's log, on this node */
#define PGRAFT_W_QUORUM 43	/* 1 if a majority is in touch as far as this node knows */
#define PGRAFT_W_MESSAGES_TAKEN 44	/* messages of the group processed since the daemon started */
#define PGRAFT_W_HEARTBEATS_SENT 45	/* since the daemon started */
#define PGRAFT_W_ELECTIONS_BEGUN 46	/* by this node since the daemon started */
#define PGRAFT_W_MEMBER_COUNT 47	/* how many of the members below are filled in */
#define PGRAFT_W_CLUSTER_NAME 48	/* name of the cluster */
#define PGRAFT_W_CLUSTER_NAME_BYTES 64
#define PGRAFT_W_DAEMON_VERSION 56	/* version of the daemon */
#define PGRAFT_W_DAEMON_VERSION_BYTES 32
#define PGRAFT_W_MEMBERS 60	/* MEMBERS_MAX times MEMBER_WORDS words, see MEMBER */
#define PGRAFT_W_STATE_CHECK 276	/* check sum */

/* SERVER: the postmaster's words, written at each start before the start number */
#define PGRAFT_W_SERVER_START 512	/* start number, 1 to START_MASK, another one at each start */
#define PGRAFT_W_POSTMASTER_PID 513	/* process id */
#define PGRAFT_W_PAGE_INODE 514	/* of the page that this server has mapped */
#define PGRAFT_W_SYSTEM_ID 515	/* of its data directory */
#define PGRAFT_W_SERVER_VERSION 516	/* server_version_num */
#define PGRAFT_W_STARTED_AT 517	/* BOOTTIME ns */

/* COUNTS: counted since the page was made, by atomic addition in any process of the server */
#define PGRAFT_W_REFUSED_STATEMENTS 520	/* statements that began as read-only because of the fence */
#define PGRAFT_W_REFUSED_COMMITS 521	/* transactions refused at commit or prepare */
#define PGRAFT_W_DROPPED_ACKS 522	/* flushed, but not acknowledged because the lease had ended */
#define PGRAFT_W_DROPPED_SYNC 523	/* flushed, but not acknowledged: the wait for sync was cancelled */
#define PGRAFT_W_ENDED_SESSIONS 524	/* sessions ended after the grace time */
#define PGRAFT_W_WEAK_COMMITS 525	/* transactions let through without waiting for sync replicas */

/* PROBE: the flush probe's words that stand alone (BOOTTIME ns, 0 never) */
#define PGRAFT_W_FLUSH_BEGUN 528	/* when the probe began its last flush of WAL */
#define PGRAFT_W_FLUSH_ENDED 529	/* when its last flush ended; before FLUSH_BEGUN while one hangs */
#define PGRAFT_W_FLUSH_PLACE 530	/* the probe's own place in allProcs, counted from 1; 0 none */

/* PULSE: the worker's picture of the server, every 10 ms; LSNs are bytes, 0 unknown */
#define PGRAFT_W_PULSE_SEQ 536	/* sequence number */
#define PGRAFT_W_PULSE_AT 537	/* when it was published, BOOTTIME ns */
#define PGRAFT_W_PULSE_START 538	/* start number of the server the worker belongs to */
#define PGRAFT_W_WORKER_PID 539	/* process id */
#define PGRAFT_W_IN_RECOVERY 540	/* 1 on a replica */
#define PGRAFT_W_INSERT_LSN 541	/* end of WAL written to memory, on a primary */
#define PGRAFT_W_FLUSHED_LSN 542	/* end of WAL on disk, on a primary */
#define PGRAFT_W_RECEIVED_LSN 543	/* end of WAL flushed by the receiver, on a replica */
#define PGRAFT_W_REPLAYED_LSN 544	/* end of WAL replayed, on a replica */
#define PGRAFT_W_RECEIVING 545	/* 1 while a WAL receiver says that it streams */
#define PGRAFT_W_REPLAYED_COMMIT_AT 546	/* time of the last commit replayed, unix us */
#define PGRAFT_W_SERVER_TIMELINE 547	/* being written, or being replayed */
#define PGRAFT_W_PARENT_TIMELINE 548	/* on a primary: the one its own forked from, 0 if none */
#define PGRAFT_W_SWITCH_LSN 549	/* on a primary: where its timeline begins, 0 if none */
#define PGRAFT_W_SESSIONS 550	/* client sessions */
#define PGRAFT_W_OPEN_XIDS 551	/* client sessions in a transaction that has an xid */
#define PGRAFT_W_ENFORCE 552	/* 0 if pgraft.enforce is off */
#define PGRAFT_W_FENCED 553	/* 1 if a write would not be acknowledged now; 0 on a replica */
#define PGRAFT_W_FENCED_AT 554	/* since when, BOOTTIME ns, 0 if it is not */
#define PGRAFT_W_FENCE_LSN 555	/* on a fenced primary: insert position read after the fence fell */
#define PGRAFT_W_TICKS 556	/* how often the worker has published since it began */
#define PGRAFT_W_SYNC_GENERATION 557	/* oldest pgraft.sync_generation of a walsender, checkpointer */
#define PGRAFT_W_SYNC_DEFINED 558	/* 1 if commits wait for synchronous replicas */
#define PGRAFT_W_STREAM_FLUSHED 559	/* what the stream through ramd_node_1 to _9 has confirmed on disk, 0 none */
#define PGRAFT_W_PULSE_CHECK 568	/* check sum */

/* MEMBER: offsets within the PGRAFT_MEMBER_WORDS words of one member */
#define PGRAFT_M_ID 0	/* node id */
#define PGRAFT_M_RAFT_PORT 1	/* of the channel between daemons */
#define PGRAFT_M_POSTGRESQL_PORT 2	/* of the server */
#define PGRAFT_M_FLAGS 3	/* 1 Raft leader, 2 primary, 4 heard lately */
#define PGRAFT_M_NAME 4	/* name of the node */
#define PGRAFT_M_NAME_BYTES 32
#define PGRAFT_M_HOST 8	/* address, cut off if longer */
#define PGRAFT_M_HOST_BYTES 128

#endif							/* PGRAFT_PAGE_LAYOUT_H */
