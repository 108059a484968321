/* What the daemon beside this server knows, and how the fence stands. Nothing here changes the group. */

-- complain if the script is sourced in psql rather than by CREATE EXTENSION
\echo Use "CREATE EXTENSION pgraft" to load this file. \quit

CREATE FUNCTION pgraft_status(
    OUT node_id int,
    OUT node_name text,
    OUT cluster_name text,
    OUT role text,
    OUT raft_role text,
    OUT term bigint,
    OUT leader_id int,
    OUT epoch bigint,
    OUT primary_id int,
    OUT timeline bigint,
    OUT lease_left_ms bigint,
    OUT fenced boolean,
    OUT enforce boolean,
    OUT quorum boolean,
    OUT daemon_pid int,
    OUT daemon_heartbeat_age_ms bigint,
    OUT daemon_version text,
    OUT worker_age_ms bigint,
    OUT sessions int,
    OUT open_xids int,
    OUT fenced_for_ms bigint,
    OUT fence_lsn pg_lsn,
    OUT flush_stuck_ms bigint,
    OUT start_number int)
RETURNS record
LANGUAGE c VOLATILE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'pgraft_status';
COMMENT ON FUNCTION pgraft_status() IS
    'how this node stands, in one row; what only the daemon knows is null until it has told it';

CREATE FUNCTION pgraft_is_leader() RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'pgraft_is_leader';
COMMENT ON FUNCTION pgraft_is_leader() IS
    'whether this node''s daemon lives and is the Raft leader (not: whether this server is the primary)';

CREATE FUNCTION pgraft_get_leader() RETURNS int
LANGUAGE c VOLATILE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'pgraft_get_leader';
COMMENT ON FUNCTION pgraft_get_leader() IS 'node id of the Raft leader, null if none is known';

CREATE FUNCTION pgraft_get_term() RETURNS bigint
LANGUAGE c VOLATILE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'pgraft_get_term';
COMMENT ON FUNCTION pgraft_get_term() IS 'Raft term';

CREATE FUNCTION pgraft_get_nodes(
    OUT node_id int,
    OUT address text,
    OUT port int,
    OUT is_leader boolean,
    OUT name text,
    OUT postgresql_port int,
    OUT is_primary boolean,
    OUT heard boolean)
RETURNS SETOF record
LANGUAGE c VOLATILE STRICT PARALLEL SAFE ROWS 3
AS 'MODULE_PATHNAME', 'pgraft_get_nodes';
COMMENT ON FUNCTION pgraft_get_nodes() IS
    'the members of the group; port is that of the channel between daemons';

CREATE FUNCTION pgraft_get_cluster_status(
    OUT node_id int,
    OUT current_term bigint,
    OUT leader_id int,
    OUT state text,
    OUT num_nodes int,
    OUT messages_processed bigint,
    OUT heartbeats_sent bigint,
    OUT elections_triggered bigint)
RETURNS record
LANGUAGE c VOLATILE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'pgraft_get_cluster_status';
COMMENT ON FUNCTION pgraft_get_cluster_status() IS
    'this member''s part in the group; counts are since its daemon started';

CREATE FUNCTION pgraft_is_healthy() RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'pgraft_is_healthy';
COMMENT ON FUNCTION pgraft_is_healthy() IS
    'the daemon lives and knows a majority, and a primary holds a valid lease';

CREATE FUNCTION pgraft_get_metrics(OUT name text, OUT value bigint)
RETURNS SETOF record
LANGUAGE c VOLATILE STRICT PARALLEL SAFE ROWS 30
AS 'MODULE_PATHNAME', 'pgraft_get_metrics';
COMMENT ON FUNCTION pgraft_get_metrics() IS
    'every count and gauge of fence, worker and group; unknown ones are left out';

CREATE FUNCTION pgraft_get_worker_state() RETURNS text
LANGUAGE c VOLATILE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'pgraft_get_worker_state';
COMMENT ON FUNCTION pgraft_get_worker_state() IS
    'running, or stopped if the worker has not published for a second';

CREATE FUNCTION pgraft_get_version() RETURNS text
LANGUAGE c STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'pgraft_get_version';
COMMENT ON FUNCTION pgraft_get_version() IS 'version of the library that is loaded';

-- Addresses and counts are for those who watch the cluster.
REVOKE ALL ON FUNCTION pgraft_get_nodes(), pgraft_get_metrics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgraft_get_nodes(), pgraft_get_metrics() TO pg_monitor;

-- Here rather than at the first use: the library has to be loaded when the server starts.
SELECT pgraft_get_worker_state();
