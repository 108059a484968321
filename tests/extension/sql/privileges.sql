-- Who may ask what; nobody may change anything by SQL.
CREATE ROLE plain;
CREATE ROLE watcher IN ROLE pg_monitor;
SET ROLE plain;
SELECT fenced FROM pgraft_status();
SELECT pgraft_get_leader();
SELECT * FROM pgraft_get_nodes();
SELECT * FROM pgraft_get_metrics();
SHOW pgraft.enforce;
SELECT count(*) FROM pg_settings WHERE name = 'pgraft.shm_path';
SET pgraft.enforce = off;
ALTER SYSTEM SET pgraft.enforce = off;
ALTER ROLE plain SET pgraft.enforce = off;
RESET ROLE;
SET ROLE watcher;
SELECT count(*) FROM pgraft_get_nodes();
SELECT count(*) > 0 FROM pgraft_get_metrics();
RESET ROLE;
SET pgraft.enforce = off;
SET pgraft.fence_grace_ms = 1;
SET pgraft.shm_path = '/elsewhere';
SET pgraft.unheard_of = 1;
SELECT name, context, vartype, unit, boot_val, min_val, max_val FROM pg_settings
WHERE name ~ '^pgraft' ORDER BY name COLLATE "C";
SELECT proname, provolatile, proparallel, has_function_privilege('plain', oid, 'EXECUTE') AS plain,
    obj_description(oid, 'pg_proc') IS NOT NULL AS described
FROM pg_proc WHERE proname ~ '^pgraft' ORDER BY proname COLLATE "C";
DROP ROLE plain;
DROP ROLE watcher;
