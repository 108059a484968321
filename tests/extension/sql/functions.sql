-- What the functions say of a group that is in order, and of one that is not.
\x on
SELECT node_id, node_name, cluster_name, role, raft_role, term, leader_id, epoch, primary_id,
    timeline, lease_left_ms > 0 AS leased, fenced, enforce, quorum, daemon_pid > 0 AS daemon,
    daemon_heartbeat_age_ms >= 0 AS beats, worker_age_ms >= 0 AS worker,
    fenced_for_ms, fence_lsn, start_number
FROM pgraft_status();
SELECT * FROM pgraft_get_cluster_status();
\x off
SELECT * FROM pgraft_get_nodes();
SELECT pgraft_is_leader(), pgraft_get_leader(), pgraft_get_term();
SELECT pgraft_get_worker_state(), pgraft_get_version();
SELECT name FROM pgraft_get_metrics() ORDER BY name COLLATE "C";
\! eval "$TAKE_LEASE"
SELECT role, lease_left_ms, fenced FROM pgraft_status();
SELECT pgraft_is_healthy();
SELECT value FROM pgraft_get_metrics() WHERE name = 'fenced';
