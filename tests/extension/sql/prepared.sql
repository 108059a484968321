-- Two-phase commit: each of its ends is a write.
CREATE TABLE kept (n int);
BEGIN;
INSERT INTO kept VALUES (1);
PREPARE TRANSACTION 'before';
BEGIN;
INSERT INTO kept VALUES (2);
PREPARE TRANSACTION 'also before';
BEGIN;
INSERT INTO kept VALUES (3);
\! eval "$TAKE_LEASE"
PREPARE TRANSACTION 'after';
\echo :LAST_ERROR_SQLSTATE
COMMIT PREPARED 'before';
\echo :LAST_ERROR_SQLSTATE
ROLLBACK PREPARED 'also before';
COMMIT PREPARED 'never there';
SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid;
\! eval "$GIVE_LEASE"
COMMIT PREPARED 'before';
ROLLBACK PREPARED 'also before';
SELECT n FROM kept;
