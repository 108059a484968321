/*-------------------------------------------------------------------------
 *
 * pgraft.c
 *		The fence inside the server: nothing is acknowledged without a lease.
 *
 * A daemon beside the server writes the lease into a page of shared memory
 * (a file in tmpfs, see page_layout.h).  Sessions look at it when a statement
 * begins, before a transaction commits or prepares, again after its record
 * is flushed, and when its answer leaves; a worker writes into the page how
 * the server is.
 *
 * RULES OF THE PAGE
 *
 * The first half is the daemon's, the second the server's; the only words
 * that both write are MAGIC, LAYOUT, BOOT (whoever makes the page) and LEASE
 * (the postmaster zeroes it at each start).  A word that stands alone is one
 * aligned 64-bit load or store.  STATE and PULSE are published under their
 * sequence numbers, odd while being written, with a check sum; whoever reads
 * them gives up after a bounded number of looks, because a writer may have
 * been stopped half-way.  Nothing on the way of a commit reads them.
 *
 * A lease is valid if its deadline lies ahead on CLOCK_BOOTTIME and its low
 * bits are the number of this very start of the server.  The postmaster
 * takes another number at every start, also after a crash of one of its
 * children, so a server is fenced until a daemon has looked at it.
 *
 * WHO IS CHECKED
 *
 * Client sessions, walsenders that run SQL among them, and background
 * workers.  Not: autovacuum, checkpointer, walsenders that stream, parallel
 * workers (their leader is checked), single-user mode.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "access/parallel.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xloginsert.h"
#include "access/xlogrecovery.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_control.h"
#include "executor/executor.h"
#include "executor/instrument.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "replication/slot.h"
#include "replication/syncrep.h"
#include "replication/walreceiver.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "page_layout.h"

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "pgraft is for PostgreSQL 15 to 18"
#endif

#define PGRAFT_VERSION "1.0"

#ifdef PG_MODULE_MAGIC_EXT
PG_MODULE_MAGIC_EXT(
					.name = "pgraft",
					.version = PGRAFT_VERSION
);
#else
PG_MODULE_MAGIC;
#endif

/* Types of file systems that do not outlive the boot, statfs(2). */
#define TMPFS_F_TYPE 0x01021994
#define RAMFS_F_TYPE 0x858458f6

#define NS_PER_MS INT64CONST(1000000)
#define PULSE_MS 10
#define FLUSH_PROBE_MS 1000
/* Rounds without any WAL after which the probe writes a record of its own. */
#define FLUSH_PROBE_IDLE_ROUNDS 10
/* So many rounds with one, after the synchronous set has changed. */
#define FLUSH_PROBE_NUDGES 3
#define ENFORCE_WARNING_MS 60000
#define END_SESSIONS_AGAIN_MS 1000
#define DRAIN_AGAIN_MS 50
#define HURRIED_PULSE_MS 2
#define HURRY_MS_MAX 5000
#define SLOT_PREFIX "ramd_node_"
/* The type of the message, see the protocol. */
#define COPY_BOTH_RESPONSE 'W'
#define HEALTHY_HEARTBEAT_MS 1000
#define WORKER_SILENT_MS 1000
/* A process that is dying may hold the page a moment longer than the memory. */
#define LOCK_TRIES 100
#define LOCK_PAUSE_MS 20
/* A reader of a published block sleeps this long after so many looks. */
#define LOOKS_BETWEEN_PAUSES 1000
#define LOOK_PAUSE_US 1000
#define HISTORY_AGAIN_MS 1000

#define RECONNECT_HINT "Reconnect: another node may be the primary now."

/* settings */
static char *shm_path = NULL;
static bool enforce = true;
static int	fence_grace_ms = 2000;
static int	sync_generation = 0;
static int	min_synchronous_commit = SYNCHRONOUS_COMMIT_REMOTE_FLUSH;

static const struct config_enum_entry commit_levels[] = {
	{"off", SYNCHRONOUS_COMMIT_OFF, false},
	{"local", SYNCHRONOUS_COMMIT_LOCAL_FLUSH, false},
	{"remote_write", SYNCHRONOUS_COMMIT_REMOTE_WRITE, false},
	{"on", SYNCHRONOUS_COMMIT_REMOTE_FLUSH, false},
	{"remote_apply", SYNCHRONOUS_COMMIT_REMOTE_APPLY, false},
	{NULL, 0, false}
};

/*
 * Which generation of the synchronous set each process has loaded: its pid in
 * the high half, the generation in the low.  Who never said so was forked with
 * at least "base", the one that the postmaster had when it made this memory.
 */
typedef struct Loaded
{
	uint64		base;
	uint64		checkpointer;

	/*
	 * By place in allProcs.  Behind them as many again: for which member a
	 * walsender streams, again behind its pid.
	 */
	uint64		processes[FLEXIBLE_ARRAY_MEMBER];
} Loaded;

static volatile Loaded *loaded = NULL;

/*
 * Set in the postmaster and inherited by every process that it forks: where
 * the page is mapped, and which start of the server this is.
 */
static volatile uint64 *page = NULL;
static int	page_fd = -1;
static uint64 start_number = 0;

/*
 * Whether sync_standbys_status of this server is a set of flags; before some
 * minor release of each branch it was a plain truth value in the same byte.
 */
static bool standby_flags = true;

/* An error of our own is under way: explain_refusal has nothing to add. */
static bool refusing = false;

/* A commit was flushed and has not been answered yet. */
static bool answer_owed = false;

/* An answer was dropped: nothing leaves this session any more. */
static bool silent = false;

/*
 * As libpq/auth.h has it in 15 to 18; that file, too, needs headers of other
 * libraries.
 */
typedef void (*ClientAuthentication_hook_type) (struct Port *port, int status);
extern PGDLLIMPORT ClientAuthentication_hook_type ClientAuthentication_hook;

static shmem_request_hook_type prev_shmem_request = NULL;
static ClientAuthentication_hook_type prev_client_authentication = NULL;
static shmem_startup_hook_type prev_shmem_startup = NULL;
static ExecutorStart_hook_type prev_executor_start = NULL;
static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

void		_PG_init(void);
PGDLLEXPORT void pgraft_worker_main(Datum arg);
PGDLLEXPORT void pgraft_flush_probe_main(Datum arg);

PG_FUNCTION_INFO_V1(pgraft_status);
PG_FUNCTION_INFO_V1(pgraft_is_leader);
PG_FUNCTION_INFO_V1(pgraft_get_leader);
PG_FUNCTION_INFO_V1(pgraft_get_term);
PG_FUNCTION_INFO_V1(pgraft_get_nodes);
PG_FUNCTION_INFO_V1(pgraft_get_cluster_status);
PG_FUNCTION_INFO_V1(pgraft_is_healthy);
PG_FUNCTION_INFO_V1(pgraft_get_metrics);
PG_FUNCTION_INFO_V1(pgraft_get_worker_state);
PG_FUNCTION_INFO_V1(pgraft_get_version);

/* --- words, clock, lease ------------------------------------------------ */

static inline uint64
boot_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64) now.tv_sec * UINT64CONST(1000000000) + (uint64) now.tv_nsec;
}

static inline uint64
get_word(int place)
{
	return __atomic_load_n(&page[place], __ATOMIC_ACQUIRE);
}

static inline void
set_word(int place, uint64 value)
{
	__atomic_store_n(&page[place], value, __ATOMIC_RELEASE);
}

static inline void
count_word(int place)
{
	if (page != NULL)
		(void) __atomic_fetch_add(&page[place], 1, __ATOMIC_RELAXED);
}

/*
 * How long this start of the server may acknowledge, ns; 0 if it may not.
 * Without a page it may not: somebody else's library kept us from opening it.
 */
static inline uint64
lease_left_ns(void)
{
	uint64		word;
	uint64		deadline;
	uint64		now;

	if (page == NULL)
		return 0;
	word = get_word(PGRAFT_W_LEASE);
	if ((word & PGRAFT_START_MASK) != start_number)
		return 0;
	deadline = word & ~PGRAFT_START_MASK;
	now = boot_ns();
	return now < deadline ? deadline - now : 0;
}

/*
 * Whether this process must not acknowledge a write now.  The healthy case
 * costs one load and one reading of the clock; everything else is asked
 * only when there is no lease.
 */
static inline bool
fenced(void)
{
	if (MyProcPort == NULL && MyBackendType != B_BG_WORKER)
		return false;
	if (lease_left_ns() > 0)
		return false;
	return enforce && IsUnderPostmaster && !IsParallelWorker() && !RecoveryInProgress();
}

/*
 * Drivers and poolers know the SQLSTATE; the hint is for whoever reads it.
 */
static void
refuse(const char *what)
{
	refusing = true;
	count_word(PGRAFT_W_REFUSED_COMMITS);
	ereport(ERROR,
			(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
			 errmsg("cannot %s: this node's lease has ended", what),
			 errdetail("Without a lease this server acknowledges no write."),
			 errhint(RECONNECT_HINT)));
}

/*
 * What was asked for is on disk and cannot be taken back; the client must
 * not be told that it is done, nor get what is in the buffer already.  All
 * assignments belong together: without the pending end the session would go on
 * and read from nowhere.
 */
static void
drop_acknowledgement(int count, const char *why)
{
	TransactionId xid = GetTopTransactionIdIfAny();

	silent = true;
	whereToSendOutput = DestNone;
	ProcDiePending = true;
	InterruptPending = true;
	count_word(count);
	/* The end of a prepared transaction has no xid, nor has one when it is answered. */
	ereport(LOG_SERVER_ONLY,
			(TransactionIdIsValid(xid) ?
			 errmsg("acknowledgement of transaction %u dropped: %s", xid, why) :
			 errmsg("acknowledgement of a transaction that has ended dropped: %s", why),
			 errdetail("It is on disk here; whether it survives is not known. The session ends.")));
}

/* --- synchronous replicas ----------------------------------------------- */

static inline bool
standbys_defined(void)
{
#ifdef SYNC_STANDBY_DEFINED
	uint8		status = ((volatile WalSndCtlData *) WalSndCtl)->sync_standbys_status;
#else
	uint8		status = *(volatile uint8 *) &WalSndCtl->sync_standbys_defined;
#endif

	if (!standby_flags)
		return status != 0;
	/* SYNC_STANDBY_INIT, SYNC_STANDBY_DEFINED: before the first, the setting counts. */
	if ((status & 1) == 0)
		return SyncRepStandbyNames != NULL && SyncRepStandbyNames[0] != '\0';
	return (status & 2) != 0;
}

/*
 * Which confirmation a transaction of this session waits for.  Whatever is no
 * commit is not waited for until it is applied, see SyncRepWaitForLSN.
 */
static int
wait_mode(bool commit)
{
	switch (synchronous_commit)
	{
		case SYNCHRONOUS_COMMIT_REMOTE_WRITE:
			return SYNC_REP_WAIT_WRITE;
		case SYNCHRONOUS_COMMIT_REMOTE_FLUSH:
			return SYNC_REP_WAIT_FLUSH;
		case SYNCHRONOUS_COMMIT_REMOTE_APPLY:
			return commit ? SYNC_REP_WAIT_APPLY : SYNC_REP_WAIT_FLUSH;
		default:
			return SYNC_REP_NO_WAIT;
	}
}

/*
 * Whether synchronous replicas were asked for and have not confirmed "upto":
 * the wait for them was cancelled, which PostgreSQL reports as a commit with a
 * warning.  The flag in shared memory counts, not this session's setting:
 * that is stale in a session that has waited.
 */
static bool
not_confirmed(XLogRecPtr upto, bool commit)
{
	int			mode = wait_mode(commit);
	bool		missing;

	if (!enforce || MyProcPort == NULL)
		return false;
	/* Too weak, and not raised: replicas were asked for only after its last look. */
	if (synchronous_commit < Min(min_synchronous_commit, SYNCHRONOUS_COMMIT_REMOTE_FLUSH))
		return max_wal_senders > 0 && standbys_defined();
	if (mode == SYNC_REP_NO_WAIT || !SyncRepRequested())
		return false;
	/* Without the lock first, as the wait itself looks. */
	if (!standbys_defined())
		return false;
	LWLockAcquire(SyncRepLock, LW_SHARED);
	missing = standbys_defined() && WalSndCtl->lsn[mode] < upto;
	LWLockRelease(SyncRepLock);
	return missing;
}

/*
 * A transaction that asked for less than every acknowledgement needs is raised
 * for as long as there is a synchronous set; the setting goes back by itself
 * when the transaction ends.  One that is let through is counted: what it
 * acknowledges may be lost.
 */
static void
raise_weak_commit(void)
{
	if (synchronous_commit >= SYNCHRONOUS_COMMIT_REMOTE_FLUSH || !enforce || IsParallelWorker() ||
		(MyProcPort == NULL && MyBackendType != B_BG_WORKER) || !standbys_defined())
		return;
	if (synchronous_commit < min_synchronous_commit)
	{
		const char *name = "on";

		for (const struct config_enum_entry *level = commit_levels; level->name != NULL; level++)
			if (level->val == min_synchronous_commit)
				name = level->name;
		(void) set_config_option("synchronous_commit", name, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
	}
	if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
		count_word(PGRAFT_W_WEAK_COMMITS);
}

/* --- who has loaded the synchronous set --------------------------------- */

static int
loaded_places(void)
{
	return MaxBackends + NUM_AUXILIARY_PROCS;
}

static void
say_loaded(int generation)
{
	uint64		word = (uint64) MyProcPid << 32 | (uint32) generation;
	int			place;

	if (loaded == NULL || MyProc == NULL)
		return;
	if (MyBackendType == B_CHECKPOINTER)
		__atomic_store_n(&loaded->checkpointer, word, __ATOMIC_RELEASE);
	place = MyProc - ProcGlobal->allProcs;
	if (place < loaded_places())
		__atomic_store_n(&loaded->processes[place], word, __ATOMIC_RELEASE);
}

/*
 * The daemon writes this setting behind synchronous_standby_names into the
 * same file, so whoever has the one has the other.
 */
static void
on_sync_generation(int value, void *extra)
{
	say_loaded(value);
}

/* --- who streams as whom ------------------------------------------------ */

/*
 * As libpq/libpq.h has it in 15 to 18; that file needs headers of libraries
 * that a server's headers come without.
 */
typedef struct CommMethods
{
	void		(*comm_reset) (void);
	int			(*flush) (void);
	int			(*flush_if_writable) (void);
	bool		(*is_send_pending) (void);
	int			(*putmessage) (char msgtype, const char *s, size_t len);
	void		(*putmessage_noblock) (char msgtype, const char *s, size_t len);
} CommMethods;

extern PGDLLIMPORT const CommMethods *PqCommMethods;

static const CommMethods *sender_comm = NULL;
static CommMethods watched_comm;

/*
 * The number of the member whose streams bear this name, or whose slot it is;
 * 0 if it is no member's.  A copy's id may stand behind it in a stream's name.
 * As PostgreSQL compares names: without regard to case.
 */
static int
member_named(const char *name, bool copies)
{
	const int	length = strlen(SLOT_PREFIX);
	char		behind;

	if (pg_strncasecmp(name, SLOT_PREFIX, length) != 0)
		return 0;
	if (name[length] < '1' || name[length] > '0' + PGRAFT_MEMBERS_MAX)
		return 0;
	behind = name[length + 1];
	return behind == '\0' || (copies && behind == '_') ? name[length] - '0' : 0;
}

/* Somebody whom commits may wait for is known by this name, to this walsender. */
static bool
names_member(const char *name)
{
	const char *member;

	if (sync_generation == 0 || SyncRepConfig == NULL)
		return false;
	member = SyncRepConfig->member_names;
	for (int number = 0; number < SyncRepConfig->nmembers; number++)
	{
		if (pg_strcasecmp(member, name) == 0 || strcmp(member, "*") == 0)
			return true;
		member += strlen(member) + 1;
	}
	return false;
}

/*
 * Each member streams through the slot that bears its number, which has one
 * walsender.  Whoever bears the name of a member without its slot would be
 * counted beside it, also if the set that has the name was made by hand: that
 * stream does not begin.  And what somebody else confirms through the slot of
 * a member is not that member's.
 */
static void
begin_stream(void)
{
	const char *through = MyReplicationSlot != NULL ? NameStr(MyReplicationSlot->data.name) : "";
	int			named = member_named(application_name, true);
	int			place = MyProc - ProcGlobal->allProcs;

	if (named != 0 ? named != member_named(through, false)
		: MyReplicationSlot == NULL && names_member(application_name))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"%s\" may stream only through its own replication slot", application_name),
				 errdetail("It is the name of a synchronous replica, which would be counted twice."),
				 errhint("Give this connection another application_name.")));
	if (place < loaded_places())
		__atomic_store_n(&loaded->processes[loaded_places() + place],
						 (uint64) MyProcPid << 32 | (uint32) named, __ATOMIC_RELEASE);
}

/* A stream begins with this answer, when its name and its slot are settled. */
static int
watched_putmessage(char msgtype, const char *s, size_t len)
{
	if (msgtype == COPY_BOTH_RESPONSE && loaded != NULL && MyProc != NULL)
		begin_stream();
	return sender_comm->putmessage(msgtype, s, len);
}

static void
watch_stream(void)
{
	sender_comm = PqCommMethods;
	watched_comm = *sender_comm;
	watched_comm.putmessage = watched_putmessage;
	PqCommMethods = &watched_comm;
}

/* A walsender that begins says what it was forked with, before it can stream. */
static void
on_client_authentication(struct Port *port, int status)
{
	if (prev_client_authentication)
		prev_client_authentication(port, status);
	say_loaded(sync_generation);
	if (am_walsender)
		watch_stream();
}

static uint64
loaded_by(int pid)
{
	for (int place = 0; place < loaded_places(); place++)
	{
		uint64		word = __atomic_load_n(&loaded->processes[place], __ATOMIC_ACQUIRE);

		if (word >> 32 == (uint64) pid)
			return word & 0xffffffff;
	}
	return loaded->base;
}

/* The member that a process streams for; 0 for none. */
static int
streams_for(int pid)
{
	for (int place = 0; place < loaded_places(); place++)
	{
		uint64		word = __atomic_load_n(&loaded->processes[loaded_places() + place], __ATOMIC_ACQUIRE);

		if (word >> 32 == (uint64) pid)
			return (int) (word & 0xffffffff);
	}
	return 0;
}

/* One that does not stream releases nobody, and reads the setting before it does. */
static bool
streams(volatile WalSnd *walsnd)
{
	return walsnd->pid != 0 && walsnd->state != WALSNDSTATE_STARTUP && walsnd->state != WALSNDSTATE_BACKUP;
}

/*
 * The oldest generation that a process still goes by which can release waiting
 * commits, or say that there are none to wait.
 */
static uint64
oldest_loaded(void)
{
	uint64		checkpointer = __atomic_load_n(&loaded->checkpointer, __ATOMIC_ACQUIRE);
	uint64		oldest = checkpointer == 0 ? loaded->base : checkpointer & 0xffffffff;

	for (int sender = 0; sender < max_wal_senders; sender++)
	{
		volatile WalSnd *walsnd = &WalSndCtl->walsnds[sender];

		if (streams(walsnd))
			oldest = Min(oldest, loaded_by(walsnd->pid));
	}
	return oldest;
}

static bool
has_slot(int pid)
{
	for (int number = 0; number < max_replication_slots; number++)
	{
		volatile ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[number];

		if (slot->in_use && slot->active_pid == pid)
			return true;
	}
	return false;
}

/*
 * Every member of the set streams through a slot of its own, which has one
 * walsender.  Whoever bears the name of one without its slot would be counted
 * beside it, so it is refused before it streams; and ended if the set came to
 * have its name later.
 */
static void
end_pretenders(void)
{
	if (sync_generation == 0)
		return;
	for (int sender = 0; sender < max_wal_senders; sender++)
	{
		volatile WalSnd *walsnd = &WalSndCtl->walsnds[sender];
		int			pid = walsnd->pid;

		if (streams(walsnd) && walsnd->sync_standby_priority > 0 && !has_slot(pid) && walsnd->pid == pid)
		{
			ereport(LOG,
					(errmsg("process %d told to end: it streams under the name of a synchronous replica without a slot",
							pid)));
			(void) kill(pid, SIGTERM);
		}
	}
}

/* --- the last look ------------------------------------------------------ */

/*
 * Between the look after the flush and the moment the answer leaves, a session
 * still releases locks and reports statistics; if its process is stopped
 * there, it would answer whenever it goes on.  So what is owed is looked at
 * once more when it is written to the socket.
 */
static const CommMethods *plain_comm = NULL;
static CommMethods guarded_comm;

static bool
must_be_silent(void)
{
	if (answer_owed && !silent && fenced())
		drop_acknowledgement(PGRAFT_W_DROPPED_ACKS, "the lease ended just before it was sent");
	return silent;
}

static int
guarded_flush(void)
{
	int			result;

	if (must_be_silent())
		return 0;
	result = plain_comm->flush();
	answer_owed = false;
	return result;
}

static int
guarded_flush_if_writable(void)
{
	return must_be_silent() ? 0 : plain_comm->flush_if_writable();
}

/* A full buffer leaves by itself. */
static int
guarded_putmessage(char msgtype, const char *s, size_t len)
{
	return must_be_silent() ? 0 : plain_comm->putmessage(msgtype, s, len);
}

static void
owe_answer(void)
{
	if (MyProcPort == NULL || !IsUnderPostmaster)
		return;
	if (PqCommMethods != &guarded_comm)
	{
		plain_comm = PqCommMethods;
		guarded_comm = *plain_comm;
		guarded_comm.flush = guarded_flush;
		guarded_comm.flush_if_writable = guarded_flush_if_writable;
		guarded_comm.putmessage = guarded_putmessage;
		PqCommMethods = &guarded_comm;
	}
	answer_owed = true;
}

static void
check_after_flush(XLogRecPtr upto, bool commit)
{
	owe_answer();
	if (fenced())
		drop_acknowledgement(PGRAFT_W_DROPPED_ACKS, "the lease ended before it could be given");
	else if (!XLogRecPtrIsInvalid(upto) && not_confirmed(upto, commit))
		drop_acknowledgement(PGRAFT_W_DROPPED_SYNC, "the wait for synchronous replicas was cancelled");
}

/*
 * End of WAL inserted so far.  At the end of a page the position told is
 * behind the header of the next, where nothing was written yet: that cannot
 * be flushed, and no replica would ever say that it has it.
 */
static XLogRecPtr
inserted_end(void)
{
	XLogRecPtr	end = GetXLogInsertRecPtr();

	if (XLogSegmentOffset(end, wal_segment_size) == SizeOfXLogLongPHD)
		return end - SizeOfXLogLongPHD;
	if (end % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		return end - SizeOfXLogShortPHD;
	return end;
}

/* End of a record of this length, with the headers of the pages it goes over. */
static XLogRecPtr
record_end(XLogRecPtr start, uint32 length)
{
	XLogRecPtr	end = start;
	uint64		left = MAXALIGN(length);

	for (;;)
	{
		uint64		room = XLOG_BLCKSZ - end % XLOG_BLCKSZ;

		if (left <= room)
			return end + left;
		left -= room;
		end += room;
		end += XLogSegmentOffset(end, wal_segment_size) == 0 ? SizeOfXLogLongPHD : SizeOfXLogShortPHD;
	}
}

/*
 * End of the last record that this process wrote.  PREPARE TRANSACTION forgets
 * it before anybody is called; where the record starts is still known, and its
 * length is its first field, which never lies across two pages.
 */
static XLogRecPtr
last_record_end(void)
{
	char		path[MAXPGPATH];
	XLogSegNo	segment;
	uint32		length = 0;
	ssize_t		got;
	int			fd;

	XLByteToSeg(ProcLastRecPtr, segment, wal_segment_size);
	XLogFilePath(path, GetWALInsertionTimeLine(), segment, wal_segment_size);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return inserted_end();
	got = pread(fd, &length, sizeof(length), XLogSegmentOffset(ProcLastRecPtr, wal_segment_size));
	close(fd);
	if (got != sizeof(length) || length < SizeOfXLogRecord)
		return inserted_end();
	return record_end(ProcLastRecPtr, length);
}

/* --- hooks -------------------------------------------------------------- */

/*
 * The last word before and after a transaction is on disk.  A transaction
 * without an xid wrote nothing that its client may rely on.  The xid is asked
 * for again after the flush: NOTIFY takes one between the two.
 *
 * A transaction that wrote nothing but its commit record (temporary or
 * unlogged tables, NOTIFY) is not waited for by PostgreSQL either.
 */
static void
on_xact(XactEvent event, void *arg)
{
	static bool only_commit_record = false;
	static int64 records_before = 0;
	bool		changes = TransactionIdIsValid(GetTopTransactionIdIfAny());

	/* Temporary tables are dropped by a transaction of a session's end. */
	if (proc_exit_inprogress)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (changes && fenced())
				refuse(event == XACT_EVENT_PRE_COMMIT ? "commit" : "prepare the transaction");
			if (changes)
				raise_weak_commit();
			only_commit_record = XLogRecPtrIsInvalid(XactLastRecEnd);
			records_before = pgWalUsage.wal_records;
			break;
		case XACT_EVENT_COMMIT:
			if (!changes)
				break;
			if (only_commit_record && pgWalUsage.wal_records <= records_before + 1)
				check_after_flush(InvalidXLogRecPtr, true);
			else
				check_after_flush(XactLastCommitEnd, true);
			break;
		case XACT_EVENT_PREPARE:
			if (enforce && MyProcPort != NULL && max_wal_senders > 0 && standbys_defined())
				check_after_flush(last_record_end(), false);
			else
				check_after_flush(InvalidXLogRecPtr, false);
			break;
		default:
			break;
	}
}

/*
 * Called by PostgreSQL while it reports an error of a statement that began
 * fenced.  Its own refusal says nothing of the reason, and is what is counted:
 * who else would know which statements it refuses.
 */
static void
explain_refusal(void *arg)
{
	if (geterrcode() == ERRCODE_READ_ONLY_SQL_TRANSACTION && !refusing)
	{
		count_word(PGRAFT_W_REFUSED_STATEMENTS);
		errhint(RECONNECT_HINT);
	}
	refusing = false;
}

/*
 * A statement that begins without a lease begins read-only; the refusal of
 * whatever it may not do is PostgreSQL's own.  A statement within another one
 * is explained by the outer one.
 */
static bool
begin_read_only(ErrorContextCallback *context)
{
	XactReadOnly = true;
	for (ErrorContextCallback *outer = error_context_stack; outer != NULL; outer = outer->previous)
		if (outer->callback == explain_refusal)
			return false;
	context->callback = explain_refusal;
	context->arg = NULL;
	context->previous = error_context_stack;
	error_context_stack = context;
	refusing = false;
	return true;
}

static void
on_executor_start(QueryDesc *query, int eflags)
{
	ErrorContextCallback context;
	bool		explained = fenced() && begin_read_only(&context);

	if (prev_executor_start)
		prev_executor_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
	if (explained)
		error_context_stack = context.previous;
}

/*
 * COMMIT PREPARED and ROLLBACK PREPARED have no xid of their own, so on_xact
 * does not see them.
 */
static TransactionStmtKind
prepared_kind(Node *statement)
{
	if (IsA(statement, TransactionStmt))
	{
		TransactionStmtKind kind = ((TransactionStmt *) statement)->kind;

		if (kind == TRANS_STMT_COMMIT_PREPARED || kind == TRANS_STMT_ROLLBACK_PREPARED)
			return kind;
	}
	return TRANS_STMT_BEGIN;
}

static void
on_process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				   ProcessUtilityContext context, ParamListInfo params,
				   QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *statement = pstmt->utilityStmt;
	TransactionStmtKind kind = prepared_kind(statement);

	ErrorContextCallback outer;
	bool		explained = false;

	if (fenced())
	{
		if (kind == TRANS_STMT_COMMIT_PREPARED)
			refuse("commit the prepared transaction");
		if (kind == TRANS_STMT_ROLLBACK_PREPARED)
			refuse("roll back the prepared transaction");
		if (IsA(statement, NotifyStmt))
			refuse("notify");
		explained = begin_read_only(&outer);
	}
	if (kind != TRANS_STMT_BEGIN)
		raise_weak_commit();
	if (prev_process_utility)
		prev_process_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	if (explained)
		error_context_stack = outer.previous;

	/* The end of the very record: this transaction writes no other. */
	if (kind != TRANS_STMT_BEGIN)
		check_after_flush(XLogRecPtrIsInvalid(XactLastRecEnd) ? inserted_end() : XactLastRecEnd,
						  kind == TRANS_STMT_COMMIT_PREPARED);
}

/* pg_notify() is no statement of its own. */
static void
on_object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	if (access == OAT_FUNCTION_EXECUTE && objectId == F_PG_NOTIFY && fenced())
		refuse("notify");
	if (prev_object_access)
		prev_object_access(access, classId, objectId, subId, arg);
}

/* --- the page ----------------------------------------------------------- */

static void
page_fault(const char *what, const char *hint)
{
	ereport(FATAL,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("cannot use the page \"%s\": %s", shm_path, what),
			 errhint("%s", hint)));
}

/* This boot of the host, its two halves exclusive-or'ed; as layout.py folds it. */
static uint64
this_boot(void)
{
	uint64		halves[2] = {0, 0};
	int			digits = 0;
	int			c;
	FILE	   *file = fopen("/proc/sys/kernel/random/boot_id", "r");

	if (file == NULL)
		ereport(FATAL, (errmsg("cannot read the boot id of this host: %m")));
	while ((c = fgetc(file)) != EOF && digits < 32)
	{
		if (c >= '0' && c <= '9')
			c -= '0';
		else if (c >= 'a' && c <= 'f')
			c -= 'a' - 10;
		else
			continue;
		halves[digits / 16] = (halves[digits / 16] << 4) | (uint64) c;
		digits++;
	}
	fclose(file);
	if (digits != 32)
		ereport(FATAL, (errmsg("the boot id of this host is not a UUID")));
	return halves[0] ^ halves[1];
}

static void
check_file(int fd, bool made)
{
	struct stat st;
	struct statfs fs;

	if (fstat(fd, &st) != 0 || fstatfs(fd, &fs) != 0)
		ereport(FATAL, (errmsg("cannot look at the page \"%s\": %m", shm_path)));
	if (!S_ISREG(st.st_mode))
		page_fault("it is not a regular file", "Remove it: the page is made by ramd or the server.");
	if (st.st_uid != geteuid())
		page_fault("it belongs to another user", "It must belong to the server's user: remove it, or name another place.");
	if ((st.st_mode & 07777) != 0600)
		page_fault("others can reach it", "Its mode must be 0600: see who changed it, then chmod 0600.");
	if (fs.f_type != TMPFS_F_TYPE && fs.f_type != RAMFS_F_TYPE)
	{
		if (made)
			(void) unlink(shm_path);
		page_fault("it is on a disk, where a lease would outlive the boot that it counts in",
				   "Name a file in memory (tmpfs), such as below /run or /dev/shm.");
	}
	if (st.st_size != 0 && st.st_size != PGRAFT_PAGE_BYTES)
		page_fault("it has the wrong size", "Remove it while neither ramd nor the server runs.");
}

static void
lock_page(int fd)
{
	struct flock lock;

	/* Of the open file: it is held until the last process of this server ends. */
	for (int tries = 0; tries < LOCK_TRIES; tries++)
	{
		memset(&lock, 0, sizeof(lock));
		lock.l_type = F_WRLCK;
		lock.l_whence = SEEK_SET;
		lock.l_start = PGRAFT_SERVER_LOCK_BYTE;
		lock.l_len = 1;
		if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
			return;
		if (errno != EAGAIN && errno != EACCES && errno != EINTR)
			ereport(FATAL, (errmsg("cannot lock the page \"%s\": %m", shm_path)));
		pg_usleep(LOCK_PAUSE_MS * 1000L);
	}
	page_fault("processes of another server have it",
			   "End them first; a copy of a data directory needs a pgraft.shm_path of its own.");
}

/* "made" tells whether it is of our own making, and so blank. */
static int
open_page_file(bool *made)
{
	int			flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	int			fd;

	*made = false;
	/* Never with O_CREAT at once: the kernel refuses that for files of others in /dev/shm. */
	fd = open(shm_path, flags);
	if (fd < 0 && errno == ENOENT)
	{
		fd = open(shm_path, flags | O_CREAT | O_EXCL, 0600);
		*made = fd >= 0;
		if (fd < 0 && errno == EEXIST)
			fd = open(shm_path, flags);
	}
	if (fd < 0 && errno == ELOOP)
		page_fault("it is a symbolic link", "Remove it: the page is a file of the server's user.");
	if (fd < 0 && errno == EISDIR)
		page_fault("it is a directory", "Name a file in pgraft.shm_path.");
	if (fd < 0)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("cannot open the page \"%s\": %m", shm_path),
				 errhint("Start the server by ramd, which makes the page, or name a file in memory that the server's user can make.")));
	if (*made)
		(void) fchmod(fd, 0600);
	return fd;
}

static void
allocate(int fd, bool made)
{
	struct stat st;
	int			error;

	if (fstat(fd, &st) == 0 && st.st_size == PGRAFT_PAGE_BYTES)
		return;
	/* Never a hole: on a full file system touching it would kill every process. */
	do
		error = posix_fallocate(fd, 0, PGRAFT_PAGE_BYTES);
	while (error == EINTR);
	if (error == 0)
		return;
	/* One that the daemon has begun is left to it. */
	if (made)
		(void) unlink(shm_path);
	errno = error;
	ereport(FATAL,
			(errcode(ERRCODE_DISK_FULL),
			 errmsg("no room for the page \"%s\": %m", shm_path),
			 errhint("Its file system in memory is full: free some of it.")));
}

/*
 * A blank page, or one of another boot, begins anew in place; one of another
 * layout is refused, because a daemon may be using it.
 */
static void
settle_page(void)
{
	uint64		boot = this_boot();

	if (get_word(PGRAFT_W_MAGIC) == PGRAFT_MAGIC)
	{
		if (get_word(PGRAFT_W_LAYOUT) != PGRAFT_LAYOUT_VERSION)
			page_fault("ramd and pgraft are of different versions",
					   "Build the extension again with this version of ramd, or remove the page while neither runs.");
		if (get_word(PGRAFT_W_BOOT) == boot)
			return;
		ereport(LOG, (errmsg("the page \"%s\" is of another boot of this host and begins anew", shm_path)));
	}
	set_word(PGRAFT_W_LEASE, 0);
	set_word(PGRAFT_W_MAGIC, 0);
	for (int place = 0; place < PGRAFT_PAGE_BYTES / 8; place++)
		set_word(place, 0);
	set_word(PGRAFT_W_LAYOUT, PGRAFT_LAYOUT_VERSION);
	set_word(PGRAFT_W_BOOT, boot);
	set_word(PGRAFT_W_MAGIC, PGRAFT_MAGIC);
}

static void
open_page(void)
{
	bool		made;
	void	   *mapped;

	if (shm_path == NULL || shm_path[0] != '/')
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("pgraft.shm_path must be the absolute path of the page"),
				 errhint("ramd sets it; by hand, name a file in memory such as /dev/shm/pgraft.page.")));
	page_fd = open_page_file(&made);
	ReserveExternalFD();
	check_file(page_fd, made);
	lock_page(page_fd);
	allocate(page_fd, made);
	mapped = mmap(NULL, PGRAFT_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, page_fd, 0);
	if (mapped == MAP_FAILED)
		ereport(FATAL, (errmsg("cannot map the page \"%s\": %m", shm_path)));
	page = mapped;
	settle_page();
	if (made)
		ereport(LOG,
				(errmsg("the page \"%s\" was missing and has been made: fenced until ramd gives a lease",
						shm_path)));
}

/*
 * Another start of this server: no lease that was given before counts for it.
 */
static void
take_start_number(void)
{
	struct stat st;

	if (fstat(page_fd, &st) != 0)
		ereport(FATAL, (errmsg("cannot look at the page \"%s\": %m", shm_path)));
	set_word(PGRAFT_W_LEASE, 0);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	start_number = get_word(PGRAFT_W_SERVER_START) + 1;
	if (start_number > PGRAFT_START_MASK)
		start_number = 1;
	set_word(PGRAFT_W_POSTMASTER_PID, 0);
	set_word(PGRAFT_W_PAGE_INODE, (uint64) st.st_ino);
	set_word(PGRAFT_W_SYSTEM_ID, GetSystemIdentifier());
	set_word(PGRAFT_W_SERVER_VERSION, (uint64) atoi(GetConfigOption("server_version_num", false, false)));
	set_word(PGRAFT_W_STARTED_AT, boot_ns());
	set_word(PGRAFT_W_FLUSH_BEGUN, 0);
	set_word(PGRAFT_W_FLUSH_ENDED, 0);
	set_word(PGRAFT_W_SERVER_START, start_number);
	/* Last: whoever finds it finds the words that belong to it. */
	set_word(PGRAFT_W_POSTMASTER_PID, (uint64) PostmasterPid);
}

static Size
loaded_size(void)
{
	return offsetof(Loaded, processes) + sizeof(uint64) * 2 * loaded_places();
}

static void
on_shmem_request(void)
{
	if (prev_shmem_request)
		prev_shmem_request();
	RequestAddinShmemSpace(loaded_size());
}

static void
know_base(void)
{
	bool		found;

	loaded = ShmemInitStruct("pgraft", loaded_size(), &found);
	memset((void *) loaded, 0, loaded_size());
	loaded->base = sync_generation;
}

static void
on_shmem_startup(void)
{
	if (prev_shmem_startup)
		prev_shmem_startup();
	/* Only the postmaster: neither single-user mode nor bootstrap has a page. */
	if (!IsPostmasterEnvironment || IsUnderPostmaster)
		return;
	if (page == NULL)
		open_page();
	take_start_number();
	know_base();
}

/* --- published blocks --------------------------------------------------- */

static uint64
check_sum(const uint64 *words, int count)
{
	uint64		total = (uint64) count;

	for (int place = 0; place < count; place++)
		total = (total ^ words[place]) * PGRAFT_CHECK_PRIME;
	return total;
}

/*
 * Read the words from "first" to before "check" of a published block.  False
 * if no look was whole: its writer was stopped half-way, or nothing was ever
 * published.
 */
static bool
read_block(int seq, int check, uint64 *words)
{
	int			count = check - seq - 1;

	for (int tries = 0; tries < PGRAFT_READ_TRIES_MAX; tries++)
	{
		uint64		before = get_word(seq);

		/* Its writer may have been preempted, which takes longer than all looks. */
		if (tries % LOOKS_BETWEEN_PAUSES == LOOKS_BETWEEN_PAUSES - 1)
			pg_usleep(LOOK_PAUSE_US);
		if (before == 0)
			return false;
		if (before % 2 != 0)
			continue;
		for (int place = 0; place < count; place++)
			words[place] = page[seq + 1 + place];
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (get_word(seq) == before && get_word(check) == check_sum(words, count))
			return words[0] != 0;
	}
	return false;
}

/* --- the worker --------------------------------------------------------- */

#define PULSE_WORDS (PGRAFT_W_PULSE_CHECK - PGRAFT_W_PULSE_SEQ - 1)
#define PULSE(name) pulse[PGRAFT_W_##name - PGRAFT_W_PULSE_SEQ - 1]

/* A session that is to end with the fence. */
typedef struct Doomed
{
	int			pid;			/* there when the fence fell; 0: nobody */
	int			told;			/* pid that was told to end, and so is counted */
} Doomed;

/* What the worker remembers from one look to the next. */
typedef struct Watch
{
	bool		had_lease;		/* this start of the server has had one */
	uint64		fenced_at;		/* 0: not fenced */
	XLogRecPtr	fence_lsn;
	Doomed	   *doomed;			/* for each place in ProcGlobal->allProcs */
	uint64		end_again_at;
	uint64		drain_again_at;
	TimeLineID	timeline;		/* of what follows */
	TimeLineID	parent_timeline;
	XLogRecPtr	switch_lsn;
	uint64		history_again_at;
	bool		enforced;
	uint64		warn_at;
	uint64		ticks;
	uint64		hurried_since;	/* 0: not hurried */
} Watch;

typedef enum Client
{
	NO_CLIENT,
	SESSION,					/* runs SQL */
	SUBSCRIBER					/* a walsender that streams to a subscriber */
} Client;

static bool
streams_logically(int pid)
{
	for (int sender = 0; sender < max_wal_senders; sender++)
	{
		volatile WalSnd *walsnd = &WalSndCtl->walsnds[sender];

		if (walsnd->pid == pid)
			return walsnd->state == WALSNDSTATE_CATCHUP || walsnd->state == WALSNDSTATE_STREAMING;
	}
	return false;
}

/*
 * Who is in this place.  Read without a lock, which a stopped process might
 * hold.  A process that ended leaves its pid behind before PostgreSQL 17, but
 * never owns its latch any longer.  Physical walsenders have no database.
 */
static Client
client_at(int place, int *pid)
{
	volatile PGPROC *proc = &ProcGlobal->allProcs[place];
	void	   *list = proc->procgloballist;

	*pid = proc->pid;
	if (*pid == 0 || proc->procLatch.owner_pid != *pid || !OidIsValid(proc->databaseId))
		return NO_CLIENT;
	if (list == (void *) &ProcGlobal->freeProcs)
		return SESSION;
	if (list != (void *) &ProcGlobal->walsenderFreeProcs)
		return NO_CLIENT;
	return streams_logically(*pid) ? SUBSCRIBER : SESSION;
}

static void
count_sessions(uint64 *pulse)
{
	for (int place = 0; place < MaxBackends; place++)
	{
		int			pid;

		if (client_at(place, &pid) == NO_CLIENT)
			continue;
		PULSE(SESSIONS)++;
		if (TransactionIdIsValid(((volatile PGPROC *) &ProcGlobal->allProcs[place])->xid))
			PULSE(OPEN_XIDS)++;
	}
}

static void
remember_sessions(Watch *watch)
{
	for (int place = 0; place < MaxBackends; place++)
	{
		Doomed	   *doomed = &watch->doomed[place];
		int			pid;

		doomed->pid = client_at(place, &pid) == NO_CLIENT ? 0 : pid;
		doomed->told = 0;
	}
}

/*
 * Tell a process to end, with the programs that it runs.  It may have ended
 * since it was looked at, but its pid is not given out again so soon.
 * Returns whether this is the first time.
 */
static bool
tell_to_end(Doomed *doomed, int pid)
{
	if (kill(-pid, SIGTERM) != 0 && kill(pid, SIGTERM) != 0)
		return false;
	if (doomed->told == pid)
		return false;
	doomed->told = pid;
	count_word(PGRAFT_W_ENDED_SESSIONS);
	return true;
}

/*
 * End whoever streams to a subscriber, which is not to see what may not
 * survive, and, with "all", the sessions that were there when the fence fell.
 * Returns how many were told for the first time.
 */
static int
end_sessions(Watch *watch, bool all)
{
	int			ended = 0;

	for (int place = 0; place < MaxBackends; place++)
	{
		Doomed	   *doomed = &watch->doomed[place];
		int			pid;
		Client		client = client_at(place, &pid);

		if (client == SUBSCRIBER || (all && client == SESSION && pid == doomed->pid))
			ended += tell_to_end(doomed, pid) ? 1 : 0;
	}
	return ended;
}

/* The fence as it is now; what follows from it comes after it is published. */
static void
look_at_fence(Watch *watch, bool is_fenced, uint64 now)
{
	if (is_fenced && watch->fenced_at == 0)
	{
		watch->fenced_at = now;
		watch->fence_lsn = inserted_end();
		watch->end_again_at = 0;
		if (watch->had_lease)
			remember_sessions(watch);
		else
			memset(watch->doomed, 0, sizeof(Doomed) * MaxBackends);
	}
	else if (!is_fenced)
	{
		watch->fenced_at = 0;
		watch->fence_lsn = InvalidXLogRecPtr;
	}
}

/*
 * Only a lease that has ended ends sessions: before the first there was none.
 */
static void
act_on_fence(Watch *watch, uint64 now)
{
	uint64		grace_ends = watch->fenced_at + (uint64) fence_grace_ms * NS_PER_MS;
	bool		all = watch->had_lease && now >= grace_ends;
	int			ended;

	if (watch->fenced_at == 0 || now < watch->end_again_at)
		return;
	watch->end_again_at = now + END_SESSIONS_AGAIN_MS * NS_PER_MS;
	if (!all && watch->had_lease)
		watch->end_again_at = Min(watch->end_again_at, grace_ends);
	ended = end_sessions(watch, all);
	if (ended > 0)
		ereport(LOG,
				(errmsg("%d sessions told to end: no lease for " UINT64_FORMAT " ms", ended,
						(uint64) ((now - watch->fenced_at) / NS_PER_MS)),
				 errhint("Sessions that begin now can read.")));
}

/* Whoever has an xid cannot commit any more, and may write WAL all the same. */
static int
end_open_xids(Watch *watch)
{
	int			ended = 0;

	for (int place = 0; place < MaxBackends; place++)
	{
		int			pid;

		if (client_at(place, &pid) == NO_CLIENT)
			continue;
		if (TransactionIdIsValid(((volatile PGPROC *) &ProcGlobal->allProcs[place])->xid))
			ended += tell_to_end(&watch->doomed[place], pid) ? 1 : 0;
	}
	return ended;
}

/* The flush probe may wait for the disk; this process may not. */
static void
wake_flush_probe(void)
{
	uint64		place = get_word(PGRAFT_W_FLUSH_PLACE);
	volatile PGPROC *proc;

	if (place == 0 || place > (uint64) MaxBackends)
		return;
	proc = &ProcGlobal->allProcs[place - 1];
	if (proc->pid != 0 && proc->procLatch.owner_pid == proc->pid)
		SetLatch((Latch *) &proc->procLatch);
}

/*
 * A switchover: the daemon has shut the fence for good and waits for a
 * replica to have all WAL.  Transactions that cannot commit are ended when
 * their time is over, and what is not on disk yet is brought there at once.
 */
static void
act_on_drain(Watch *watch, const uint64 *pulse, uint64 now)
{
	uint64		drain_at = get_word(PGRAFT_W_DRAIN_AT);
	int			ended;

	if (drain_at == 0 || watch->fenced_at == 0)
		return;
	if (PULSE(FLUSHED_LSN) < PULSE(INSERT_LSN))
		wake_flush_probe();
	if (PULSE(OPEN_XIDS) == 0 || now < drain_at || now < watch->drain_again_at)
		return;
	watch->drain_again_at = now + DRAIN_AGAIN_MS * NS_PER_MS;
	ended = end_open_xids(watch);
	if (ended > 0)
		ereport(LOG, (errmsg("%d sessions with an open transaction told to end: another server becomes primary",
							 ended)));
}

/* The lease as it goes and comes, told to the server's log. */
static void
tell_of_fence(const Watch *watch, uint64 fenced_before)
{
	if (!watch->had_lease || (watch->fenced_at != 0) == (fenced_before != 0))
		return;
	if (watch->fenced_at != 0)
		ereport(LOG, (errmsg("the lease has ended: writes are refused until it is given again")));
	else
		ereport(LOG, (errmsg("this server holds a lease: writes are accepted")));
}

/*
 * The parent of a timeline and where it forked from it: the last line of its
 * history file.  Read here, because readTimeLineHistory() ends the process
 * over a file that it does not like.
 */
static bool
read_history(TimeLineID timeline, TimeLineID *parent, XLogRecPtr *fork)
{
	char		path[MAXPGPATH];
	char		line[MAXPGPATH];
	bool		found = false;
	FILE	   *file;

	TLHistoryFilePath(path, timeline);
	file = fopen(path, "re");
	if (file == NULL)
		return false;
	while (fgets(line, sizeof(line), file) != NULL)
	{
		unsigned int number;
		unsigned int high;
		unsigned int low;

		if (sscanf(line, " %u %X/%X", &number, &high, &low) != 3)
			continue;
		*parent = number;
		*fork = (XLogRecPtr) high << 32 | low;
		found = true;
	}
	fclose(file);
	return found;
}

/* Where the timeline of a primary begins; read once for each timeline. */
static void
know_fork(Watch *watch, TimeLineID timeline, uint64 now)
{
	if (watch->timeline != timeline)
	{
		watch->timeline = timeline;
		watch->parent_timeline = 0;
		watch->switch_lsn = InvalidXLogRecPtr;
		watch->history_again_at = 0;
	}
	if (timeline <= 1 || watch->parent_timeline != 0 || now < watch->history_again_at)
		return;
	watch->history_again_at = now + HISTORY_AGAIN_MS * NS_PER_MS;
	(void) read_history(timeline, &watch->parent_timeline, &watch->switch_lsn);
}

static void
look_as_replica(uint64 *pulse)
{
	TimeLineID	replayed = 0;
	TimeLineID	received = 0;
	TimestampTz committed = GetLatestXTime();
	XLogRecPtr	end = GetWalRcvFlushRecPtr(NULL, &received);

	PULSE(IN_RECOVERY) = 1;
	PULSE(REPLAYED_LSN) = GetXLogReplayRecPtr(&replayed);
	PULSE(SERVER_TIMELINE) = replayed;
	/* What was received on another timeline is no position on this one. */
	PULSE(RECEIVED_LSN) = received == replayed ? end : InvalidXLogRecPtr;
	/* Not WalRcvStreaming(): that takes a receiver for streaming that only tries to. */
	PULSE(RECEIVING) = WalRcv->walRcvState == WALRCV_STREAMING ? 1 : 0;
	if (committed != 0)
		PULSE(REPLAYED_COMMIT_AT) = (uint64) (committed +
											  (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY);
}

static void
look_at_streams(uint64 *pulse)
{
	for (int sender = 0; sender < max_wal_senders; sender++)
	{
		volatile WalSnd *walsnd = &WalSndCtl->walsnds[sender];
		int			pid = walsnd->pid;
		int			member = pid != 0 && streams(walsnd) ? streams_for(pid) : 0;

		if (member != 0 && walsnd->pid == pid)
			pulse[PGRAFT_W_STREAM_FLUSHED - PGRAFT_W_PULSE_SEQ - 1 + member - 1] = walsnd->flush;
	}
}

static void
look_as_primary(Watch *watch, uint64 *pulse)
{
	TimeLineID	timeline = 0;

	PULSE(FLUSHED_LSN) = GetFlushRecPtr(&timeline);
	PULSE(INSERT_LSN) = inserted_end();
	PULSE(SERVER_TIMELINE) = timeline;
	know_fork(watch, timeline, PULSE(PULSE_AT));
	PULSE(PARENT_TIMELINE) = watch->parent_timeline;
	PULSE(SWITCH_LSN) = watch->switch_lsn;
	look_at_streams(pulse);
}

static void
publish(const uint64 *pulse)
{
	uint64		seq = get_word(PGRAFT_W_PULSE_SEQ);

	__atomic_store_n(&page[PGRAFT_W_PULSE_SEQ], seq + 1, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (int place = 0; place < PULSE_WORDS; place++)
		page[PGRAFT_W_PULSE_SEQ + 1 + place] = pulse[place];
	page[PGRAFT_W_PULSE_CHECK] = check_sum(pulse, PULSE_WORDS);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	set_word(PGRAFT_W_PULSE_SEQ, seq + 2);
}

static void
look_and_publish(Watch *watch)
{
	uint64		pulse[PULSE_WORDS] = {0};
	uint64		fenced_before = watch->fenced_at;
	bool		lease = lease_left_ns() > 0;
	uint64		now = boot_ns();

	PULSE(PULSE_AT) = now;
	PULSE(PULSE_START) = start_number;
	PULSE(WORKER_PID) = (uint64) MyProcPid;
	PULSE(ENFORCE) = enforce ? 1 : 0;
	/*
	 * Before the end of WAL is read: if nobody had an xid under the fence, there
	 * is no commit behind it.
	 */
	count_sessions(pulse);
	if (RecoveryInProgress())
		look_as_replica(pulse);
	else
	{
		watch->had_lease |= lease;
		look_at_fence(watch, !lease && enforce, now);
		look_as_primary(watch, pulse);
	}
	PULSE(FENCED) = watch->fenced_at != 0 ? 1 : 0;
	PULSE(FENCED_AT) = watch->fenced_at;
	PULSE(FENCE_LSN) = watch->fence_lsn;
	PULSE(TICKS) = ++watch->ticks;
	PULSE(SYNC_GENERATION) = oldest_loaded();
	PULSE(SYNC_DEFINED) = standbys_defined() ? 1 : 0;
	publish(pulse);
	/* Afterwards: whoever writes the log may be stuck. */
	act_on_drain(watch, pulse, now);
	act_on_fence(watch, now);
	end_pretenders();
	tell_of_fence(watch, fenced_before);
}

/* An open fence is said again and again. */
static void
warn_if_open(Watch *watch)
{
	uint64		now = boot_ns();

	if (RecoveryInProgress() || (enforce == watch->enforced && (enforce || now < watch->warn_at)))
		return;
	if (enforce)
		ereport(LOG, (errmsg("pgraft.enforce is on again: nothing is acknowledged without a lease")));
	else
		ereport(WARNING,
				(errmsg("pgraft.enforce is off: this server acknowledges writes without a lease"),
				 errhint("Two servers may do so at once. Set pgraft.enforce to on and reload.")));
	watch->enforced = enforce;
	watch->warn_at = now + ENFORCE_WARNING_MS * NS_PER_MS;
}

static void
begin_worker(void)
{
	/* Exit status 0: not to be started again. */
	if (page == NULL)
	{
		ereport(LOG, (errmsg("pgraft has no page: another library keeps shared memory from being set up")));
		proc_exit(0);
	}
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
}

/* Wait; false when the worker is to end. */
static bool
next_turn(long wait_ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, wait_ms,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	return !ShutdownRequestPending;
}

/*
 * When to look again.  A daemon waits for what is seen of a drain, of a
 * promotion, and of the streams before a new primary's first lease.
 */
static long
pulse_ms(Watch *watch)
{
	uint64		now = boot_ns();

	if (get_word(PGRAFT_W_DRAIN_AT) != 0)
		return HURRIED_PULSE_MS;
	if (RecoveryInProgress() ? !PromoteIsTriggered() : watch->had_lease || !enforce)
		watch->hurried_since = 0;
	else if (watch->hurried_since == 0)
		watch->hurried_since = now;
	if (watch->hurried_since == 0 || now - watch->hurried_since > HURRY_MS_MAX * NS_PER_MS)
		return PULSE_MS;
	return HURRIED_PULSE_MS;
}

/*
 * Tells the daemon every ten milliseconds how the server is, and ends
 * sessions when a lease has ended.  It takes no lock that a stopped process
 * could hold, but spinlocks, which are held for a few instructions; and it
 * waits for no disk.
 */
void
pgraft_worker_main(Datum arg)
{
	Watch	   *watch = MemoryContextAllocZero(TopMemoryContext, sizeof(Watch));

	begin_worker();
	watch->doomed = MemoryContextAllocZero(TopMemoryContext, sizeof(Doomed) * MaxBackends);
	watch->enforced = true;
	/* A worker that was killed half-way left an odd number. */
	set_word(PGRAFT_W_PULSE_SEQ, (get_word(PGRAFT_W_PULSE_SEQ) | 1) + 1);
	do
	{
		look_and_publish(watch);
		warn_if_open(watch);
	} while (next_turn(pulse_ms(watch)));
	/* Not 0, or it would not be started again after somebody else's signal. */
	proc_exit(1);
}

/* --- the flush probe ---------------------------------------------------- */

/*
 * A record without a meaning, so that there is something to flush.  It does
 * not count as activity: an idle server is to stay idle for checkpoints and
 * archiving.
 */
static XLogRecPtr
insert_nothing(void)
{
	char		nothing = 0;

	XLogBeginInsert();
	XLogRegisterData(&nothing, sizeof(nothing));
	XLogSetRecordFlags(XLOG_MARK_UNIMPORTANT);
	return XLogInsert(RM_XLOG_ID, XLOG_NOOP);
}

/*
 * Flushes WAL each second and says when it began and when it was done, so that
 * a disk that hangs is told from commits that wait for replicas.  It may
 * hang itself: nobody waits for it.
 */
void
pgraft_flush_probe_main(Datum arg)
{
	int			idle_rounds = 0;
	int			generation = sync_generation;
	int			nudges = 0;

	begin_worker();
	set_word(PGRAFT_W_FLUSH_PLACE, (uint64) (MyProc - ProcGlobal->allProcs) + 1);
	while (next_turn(FLUSH_PROBE_MS))
	{
		XLogRecPtr	end;
		bool		idle;

		if (!RecoveryInProgress() && lease_left_ns() == 0 && get_word(PGRAFT_W_DRAIN_AT) != 0)
			XLogFlush(inserted_end());
		/* A primary that may not write writes nothing more than it must. */
		if (RecoveryInProgress() || lease_left_ns() == 0)
			continue;
		end = inserted_end();
		idle = end <= GetFlushRecPtr(NULL);
		/*
		 * Whoever waits is looked at again when a replica answers, and a new set
		 * may have been enough already: make them answer.
		 */
		if (generation != sync_generation)
		{
			generation = sync_generation;
			nudges = FLUSH_PROBE_NUDGES;
		}
		if (idle && nudges == 0 && ++idle_rounds < FLUSH_PROBE_IDLE_ROUNDS)
			continue;
		nudges = Max(nudges - 1, 0);
		idle_rounds = 0;
		set_word(PGRAFT_W_FLUSH_BEGUN, boot_ns());
		XLogFlush(idle ? insert_nothing() : end);
		set_word(PGRAFT_W_FLUSH_ENDED, boot_ns());
	}
	proc_exit(1);
}

/* --- loading ------------------------------------------------------------ */

static void
know_minor(void)
{
	static const int since[] = {150013, 160009, 170005, 180000};
	int			running = atoi(GetConfigOption("server_version_num", false, false));

	standby_flags = running >= since[PG_VERSION_NUM / 10000 - 15];
}

static void
define_settings(void)
{
	DefineCustomStringVariable("pgraft.shm_path",
							   "File in memory that the server shares with its daemon.",
							   NULL, &shm_path, "", PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomBoolVariable("pgraft.enforce",
							 "Refuse to acknowledge writes without a lease.",
							 "Off is for an emergency: two servers may acknowledge writes at once.",
							 &enforce, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pgraft.fence_grace_ms",
							"Time after the end of a lease until client sessions are ended.",
							NULL, &fence_grace_ms, 2000, 0, 600000, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("pgraft.sync_generation",
							"Number of the synchronous set that synchronous_standby_names says.",
							"ramd sets it behind that, in the same file.",
							&sync_generation, 0, 0, INT_MAX, PGC_SIGHUP, GUC_NOT_IN_SAMPLE,
							NULL, on_sync_generation, NULL);
	DefineCustomEnumVariable("pgraft.min_synchronous_commit",
							 "Transactions that ask for less are raised to it while replicas are waited for.",
							 "What is acknowledged below \"on\" may be lost in a failover.",
							 &min_synchronous_commit, SYNCHRONOUS_COMMIT_REMOTE_FLUSH, commit_levels,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("pgraft");
}

/* Not strlcpy(): whether libc or the server has it depends on the headers. */
#define SET_NAME(field, name) snprintf(field, sizeof(field), "%s", name)

static void
register_worker(const char *name, const char *function, BgWorkerStartTime when)
{
	BackgroundWorker worker;
	const char *library = "pgraft";
	Dl_info		own;

	/* The same file as is loaded already, whatever path it was found by. */
	if (dladdr((void *) _PG_init, &own) != 0 && own.dli_fname != NULL &&
		strlen(own.dli_fname) < sizeof(worker.bgw_library_name))
		library = own.dli_fname;
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = when;
	worker.bgw_restart_time = 1;
	SET_NAME(worker.bgw_name, name);
	SET_NAME(worker.bgw_type, name);
	SET_NAME(worker.bgw_library_name, library);
	SET_NAME(worker.bgw_function_name, function);
	RegisterBackgroundWorker(&worker);
}

void
_PG_init(void)
{
	/* By CREATE EXTENSION or LOAD it is too late for everything. */
	if (!process_shared_preload_libraries_in_progress)
		return;
	/* pg_upgrade writes into a new cluster that has no daemon yet. */
	if (IsBinaryUpgrade)
		return;
	know_minor();
	define_settings();

	prev_shmem_request = shmem_request_hook;
	shmem_request_hook = on_shmem_request;
	prev_client_authentication = ClientAuthentication_hook;
	ClientAuthentication_hook = on_client_authentication;
	prev_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = on_shmem_startup;
	prev_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = on_executor_start;
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_process_utility;
	prev_object_access = object_access_hook;
	object_access_hook = on_object_access;
	RegisterXactCallback(on_xact, NULL);

	register_worker("pgraft", "pgraft_worker_main", BgWorkerStart_PostmasterStart);
	register_worker("pgraft flush probe", "pgraft_flush_probe_main", BgWorkerStart_RecoveryFinished);
}

/* --- SQL functions ------------------------------------------------------ */

#define STATE_WORDS (PGRAFT_W_STATE_CHECK - PGRAFT_W_STATE_SEQ - 1)
#define STATE_PLACE(name) (PGRAFT_W_##name - PGRAFT_W_STATE_SEQ - 1)
#define STATE(name) state[STATE_PLACE(name)]
#define COLUMNS_MAX 24

static const char *const raft_roles[] = {"unknown", "follower", "candidate", "leader", "learner"};

/* A row that is being put together; what is not known is null. */
typedef struct Row
{
	Datum		values[COLUMNS_MAX];
	bool		nulls[COLUMNS_MAX];
	int			count;
} Row;

static void
put(Row *row, bool known, Datum value)
{
	Assert(row->count < COLUMNS_MAX);
	row->values[row->count] = known ? value : (Datum) 0;
	row->nulls[row->count++] = !known;
}

static void
put_text(Row *row, const char *text)
{
	put(row, text != NULL, text != NULL ? CStringGetTextDatum(text) : (Datum) 0);
}

static Datum
finish_row(FunctionCallInfo fcinfo, Row *row)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != row->count)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the extension in this database is not of the version that is loaded"),
				 errhint("Run ALTER EXTENSION pgraft UPDATE.")));
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), row->values, row->nulls));
}

static void
require_page(void)
{
	if (page == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pgraft must be loaded by shared_preload_libraries"),
				 errhint("Start this server by ramd, or add pgraft to shared_preload_libraries and set pgraft.shm_path, then restart.")));
}

/* The daemon's picture; false if it has none, or was stopped while it wrote. */
static bool
read_state(uint64 *state)
{
	require_page();
	return read_block(PGRAFT_W_STATE_SEQ, PGRAFT_W_STATE_CHECK, state);
}

/*
 * A text of the page, which is UTF-8.  Never an error: what this database
 * cannot hold becomes question marks.
 */
static char *
page_text(const uint64 *words, int bytes)
{
	char	   *text = pnstrdup((const char *) words, bytes - 1);
	int			length = strlen(text);

	if (GetDatabaseEncoding() == PG_UTF8 && pg_verify_mbstr(PG_UTF8, text, length, true))
		return text;
	for (char *c = text; *c != '\0'; c++)
		if (IS_HIGHBIT_SET(*c))
			*c = '?';
	return text;
}

static const char *
raft_role(uint64 number)
{
	return number < lengthof(raft_roles) ? raft_roles[number] : raft_roles[0];
}

static int64
age_ms(uint64 at, uint64 now)
{
	return now > at ? (int64) ((now - at) / NS_PER_MS) : 0;
}

static bool
daemon_beats(void)
{
	uint64		at = get_word(PGRAFT_W_DAEMON_HEARTBEAT);

	return at != 0 && get_word(PGRAFT_W_DAEMON_PID) != 0 &&
		age_ms(at, boot_ns()) < HEALTHY_HEARTBEAT_MS;
}

/* For how long the present flush of the probe has been under way, ms. */
static int64
flush_stuck_ms(void)
{
	uint64		begun = get_word(PGRAFT_W_FLUSH_BEGUN);

	return get_word(PGRAFT_W_FLUSH_ENDED) >= begun ? 0 : age_ms(begun, boot_ns());
}

/* The server's own picture; false if this start's worker has not published. */
static bool
read_pulse(uint64 *pulse)
{
	return read_block(PGRAFT_W_PULSE_SEQ, PGRAFT_W_PULSE_CHECK, pulse) &&
		PULSE(PULSE_START) == start_number;
}

static bool
fence_stands(void)
{
	return enforce && lease_left_ns() == 0 && !RecoveryInProgress();
}

static uint64 *
member_at(uint64 *state, uint64 number)
{
	return &state[STATE_PLACE(MEMBERS) + number * PGRAFT_MEMBER_WORDS];
}

static char *
own_name(uint64 *state)
{
	for (uint64 number = 0; number < Min(STATE(MEMBER_COUNT), PGRAFT_MEMBERS_MAX); number++)
	{
		uint64	   *member = member_at(state, number);

		if (member[PGRAFT_M_ID] == STATE(NODE_ID))
			return page_text(&member[PGRAFT_M_NAME], PGRAFT_M_NAME_BYTES);
	}
	return NULL;
}

static void
put_server(Row *row, uint64 *pulse)
{
	bool		alive = read_pulse(pulse);
	uint64		now = boot_ns();
	uint64		begun = get_word(PGRAFT_W_FLUSH_BEGUN);

	put(row, alive, Int64GetDatum(age_ms(PULSE(PULSE_AT), now)));
	put(row, alive, Int32GetDatum((int32) PULSE(SESSIONS)));
	put(row, alive, Int32GetDatum((int32) PULSE(OPEN_XIDS)));
	put(row, alive && PULSE(FENCED_AT) != 0, Int64GetDatum(age_ms(PULSE(FENCED_AT), now)));
	put(row, alive && PULSE(FENCE_LSN) != 0, LSNGetDatum(PULSE(FENCE_LSN)));
	put(row, begun != 0, Int64GetDatum(flush_stuck_ms()));
}

/* pgraft_status(): how this node stands, in one row. */
Datum
pgraft_status(PG_FUNCTION_ARGS)
{
	uint64		state[STATE_WORDS] = {0};
	uint64		pulse[PULSE_WORDS] = {0};
	bool		known = read_state(state);
	uint64		heartbeat = get_word(PGRAFT_W_DAEMON_HEARTBEAT);
	uint64		daemon = get_word(PGRAFT_W_DAEMON_PID);
	Row			row = {0};

	put(&row, known, Int32GetDatum((int32) STATE(NODE_ID)));
	put_text(&row, known ? own_name(state) : NULL);
	put_text(&row, known ? page_text(&STATE(CLUSTER_NAME), PGRAFT_W_CLUSTER_NAME_BYTES) : NULL);
	put_text(&row, RecoveryInProgress() ? "replica" : "primary");
	put_text(&row, known ? raft_role(STATE(RAFT_ROLE)) : NULL);
	put(&row, known, Int64GetDatum((int64) STATE(TERM)));
	put(&row, known && STATE(LEADER_ID) != 0, Int32GetDatum((int32) STATE(LEADER_ID)));
	put(&row, known, Int64GetDatum((int64) STATE(EPOCH)));
	put(&row, known && STATE(PRIMARY_ID) != 0, Int32GetDatum((int32) STATE(PRIMARY_ID)));
	put(&row, known, Int64GetDatum((int64) STATE(TIMELINE)));
	put(&row, true, Int64GetDatum((int64) (lease_left_ns() / NS_PER_MS)));
	put(&row, true, BoolGetDatum(fence_stands()));
	put(&row, true, BoolGetDatum(enforce));
	put(&row, known, BoolGetDatum(STATE(QUORUM) != 0));
	put(&row, daemon != 0, Int32GetDatum((int32) daemon));
	put(&row, heartbeat != 0, Int64GetDatum(age_ms(heartbeat, boot_ns())));
	put_text(&row, known ? page_text(&STATE(DAEMON_VERSION), PGRAFT_W_DAEMON_VERSION_BYTES) : NULL);
	put_server(&row, pulse);
	put(&row, true, Int32GetDatum((int32) start_number));
	return finish_row(fcinfo, &row);
}

/* A daemon that has not been heard is nobody's leader any longer. */
Datum
pgraft_is_leader(PG_FUNCTION_ARGS)
{
	uint64		state[STATE_WORDS];

	if (!read_state(state))
		PG_RETURN_NULL();
	PG_RETURN_BOOL(daemon_beats() && strcmp(raft_role(STATE(RAFT_ROLE)), "leader") == 0);
}

Datum
pgraft_get_leader(PG_FUNCTION_ARGS)
{
	uint64		state[STATE_WORDS];

	if (!read_state(state) || STATE(LEADER_ID) == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT32((int32) STATE(LEADER_ID));
}

Datum
pgraft_get_term(PG_FUNCTION_ARGS)
{
	uint64		state[STATE_WORDS];

	if (!read_state(state))
		PG_RETURN_NULL();
	PG_RETURN_INT64((int64) STATE(TERM));
}

/* pgraft_get_nodes(): the members, as far as the daemon has told of them. */
Datum
pgraft_get_nodes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	uint64		state[STATE_WORDS];
	bool		known = read_state(state);

	InitMaterializedSRF(fcinfo, 0);
	for (uint64 number = 0; known && number < Min(STATE(MEMBER_COUNT), PGRAFT_MEMBERS_MAX); number++)
	{
		uint64	   *member = member_at(state, number);
		uint64		flags = member[PGRAFT_M_FLAGS];
		Row			row = {0};

		put(&row, true, Int32GetDatum((int32) member[PGRAFT_M_ID]));
		put_text(&row, page_text(&member[PGRAFT_M_HOST], PGRAFT_M_HOST_BYTES));
		put(&row, true, Int32GetDatum((int32) member[PGRAFT_M_RAFT_PORT]));
		put(&row, true, BoolGetDatum((flags & PGRAFT_FLAG_LEADER) != 0));
		put_text(&row, page_text(&member[PGRAFT_M_NAME], PGRAFT_M_NAME_BYTES));
		put(&row, true, Int32GetDatum((int32) member[PGRAFT_M_POSTGRESQL_PORT]));
		put(&row, true, BoolGetDatum((flags & PGRAFT_FLAG_PRIMARY) != 0));
		put(&row, true, BoolGetDatum((flags & PGRAFT_FLAG_HEARD) != 0));
		tuplestore_putvalues(result->setResult, result->setDesc, row.values, row.nulls);
	}
	return (Datum) 0;
}

/* pgraft_get_cluster_status(): this member's part in the group, in one row. */
Datum
pgraft_get_cluster_status(PG_FUNCTION_ARGS)
{
	uint64		state[STATE_WORDS] = {0};
	bool		known = read_state(state);
	Row			row = {0};

	put(&row, known, Int32GetDatum((int32) STATE(NODE_ID)));
	put(&row, known, Int64GetDatum((int64) STATE(TERM)));
	put(&row, known && STATE(LEADER_ID) != 0, Int32GetDatum((int32) STATE(LEADER_ID)));
	put_text(&row, known ? raft_role(STATE(RAFT_ROLE)) : NULL);
	put(&row, known, Int32GetDatum((int32) STATE(MEMBER_COUNT)));
	put(&row, known, Int64GetDatum((int64) STATE(MESSAGES_TAKEN)));
	put(&row, known, Int64GetDatum((int64) STATE(HEARTBEATS_SENT)));
	put(&row, known, Int64GetDatum((int64) STATE(ELECTIONS_BEGUN)));
	return finish_row(fcinfo, &row);
}

/*
 * pgraft_is_healthy(): the daemon lives, knows a majority, and, on a primary,
 * the lease is valid.
 */
Datum
pgraft_is_healthy(PG_FUNCTION_ARGS)
{
	uint64		state[STATE_WORDS];
	bool		known = read_state(state);

	PG_RETURN_BOOL(known && STATE(QUORUM) != 0 && daemon_beats() &&
				   (RecoveryInProgress() || lease_left_ns() > 0));
}

static void
put_metric(ReturnSetInfo *result, const char *name, uint64 value)
{
	Row			row = {0};

	put_text(&row, name);
	put(&row, true, Int64GetDatum((int64) value));
	tuplestore_putvalues(result->setResult, result->setDesc, row.values, row.nulls);
}

static void
put_counts(ReturnSetInfo *result)
{
	put_metric(result, "refused_statements", get_word(PGRAFT_W_REFUSED_STATEMENTS));
	put_metric(result, "refused_commits", get_word(PGRAFT_W_REFUSED_COMMITS));
	put_metric(result, "dropped_acknowledgements", get_word(PGRAFT_W_DROPPED_ACKS));
	put_metric(result, "dropped_unconfirmed", get_word(PGRAFT_W_DROPPED_SYNC));
	put_metric(result, "ended_sessions", get_word(PGRAFT_W_ENDED_SESSIONS));
	put_metric(result, "weak_commits", get_word(PGRAFT_W_WEAK_COMMITS));
	put_metric(result, "released_epoch", get_word(PGRAFT_W_RELEASED_EPOCH));
	put_metric(result, "server_start", start_number);
	put_metric(result, "lease_left_ms", lease_left_ns() / NS_PER_MS);
	put_metric(result, "fenced", fence_stands() ? 1 : 0);
	put_metric(result, "enforce", enforce ? 1 : 0);
	put_metric(result, "flush_stuck_ms", (uint64) flush_stuck_ms());
	if (get_word(PGRAFT_W_DAEMON_HEARTBEAT) != 0)
		put_metric(result, "daemon_heartbeat_age_ms",
				   (uint64) age_ms(get_word(PGRAFT_W_DAEMON_HEARTBEAT), boot_ns()));
}

static void
put_pulse(ReturnSetInfo *result, const uint64 *pulse)
{
	put_metric(result, "worker_age_ms", (uint64) age_ms(PULSE(PULSE_AT), boot_ns()));
	put_metric(result, "worker_ticks", PULSE(TICKS));
	put_metric(result, "sessions", PULSE(SESSIONS));
	put_metric(result, "open_xids", PULSE(OPEN_XIDS));
	put_metric(result, "server_timeline", PULSE(SERVER_TIMELINE));
	put_metric(result, "insert_lsn", PULSE(INSERT_LSN));
	put_metric(result, "flushed_lsn", PULSE(FLUSHED_LSN));
	put_metric(result, "received_lsn", PULSE(RECEIVED_LSN));
	put_metric(result, "replayed_lsn", PULSE(REPLAYED_LSN));
	put_metric(result, "receiving", PULSE(RECEIVING));
}

static void
put_state(ReturnSetInfo *result, const uint64 *state)
{
	put_metric(result, "term", STATE(TERM));
	put_metric(result, "epoch", STATE(EPOCH));
	put_metric(result, "quorum", STATE(QUORUM));
	put_metric(result, "commit_index", STATE(COMMIT_INDEX));
	put_metric(result, "applied_index", STATE(APPLIED_INDEX));
	put_metric(result, "num_nodes", STATE(MEMBER_COUNT));
	put_metric(result, "messages_processed", STATE(MESSAGES_TAKEN));
	put_metric(result, "heartbeats_sent", STATE(HEARTBEATS_SENT));
	put_metric(result, "elections_triggered", STATE(ELECTIONS_BEGUN));
}

/* pgraft_get_metrics(): every count and gauge; those not known are left out. */
Datum
pgraft_get_metrics(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	uint64		pulse[PULSE_WORDS];
	uint64		state[STATE_WORDS];
	bool		known = read_state(state);

	InitMaterializedSRF(fcinfo, 0);
	put_counts(result);
	if (read_pulse(pulse))
		put_pulse(result, pulse);
	if (known)
		put_state(result, state);
	return (Datum) 0;
}

/* pgraft_get_worker_state(): running, or stopped if it has not published lately. */
Datum
pgraft_get_worker_state(PG_FUNCTION_ARGS)
{
	uint64		pulse[PULSE_WORDS];
	bool		running;

	require_page();
	running = read_pulse(pulse) && age_ms(PULSE(PULSE_AT), boot_ns()) < WORKER_SILENT_MS;
	PG_RETURN_TEXT_P(cstring_to_text(running ? "running" : "stopped"));
}

Datum
pgraft_get_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(PGRAFT_VERSION));
}
