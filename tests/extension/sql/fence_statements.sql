-- What a server without a lease still does, and what it refuses.
\set VERBOSITY default
CREATE TABLE kept (n int);
INSERT INTO kept VALUES (1), (2);
CREATE SEQUENCE numbers;
CREATE FUNCTION writes() RETURNS void LANGUAGE sql AS 'INSERT INTO kept VALUES (9)';
\! eval "$TAKE_LEASE"
-- Reads go on.
SELECT count(*) FROM kept;
SHOW transaction_read_only;
BEGIN;
DECLARE c CURSOR FOR SELECT n FROM kept ORDER BY n;
FETCH 1 FROM c;
FETCH 1 FROM c;
COMMIT;
COPY kept TO STDOUT;
EXPLAIN (COSTS off) INSERT INTO kept VALUES (3);
-- Nothing is written.
INSERT INTO kept VALUES (3);
\echo :LAST_ERROR_SQLSTATE
UPDATE kept SET n = 0;
DELETE FROM kept;
MERGE INTO kept USING (SELECT 1 AS m) AS s ON n = m WHEN MATCHED THEN DELETE;
WITH w AS (INSERT INTO kept VALUES (3) RETURNING n) SELECT * FROM w;
SELECT n FROM kept FOR UPDATE;
TRUNCATE kept;
COPY kept FROM STDIN;
3
\.
SELECT nextval('numbers');
SELECT setval('numbers', 7);
SELECT lo_create(0);
CREATE TABLE more (n int);
ALTER TABLE kept ADD COLUMN m int;
DROP TABLE kept;
CREATE INDEX ON kept (n);
CREATE ROLE somebody;
GRANT SELECT ON kept TO PUBLIC;
COMMENT ON TABLE kept IS 'x';
CREATE TEMP TABLE mine (n int);
CREATE DATABASE elsewhere;
REFRESH MATERIALIZED VIEW nothing;
-- Nor from within something else.
SELECT writes();
DO $$ BEGIN INSERT INTO kept VALUES (3); END $$;
DO $$ BEGIN
    BEGIN
        INSERT INTO kept VALUES (3);
    EXCEPTION WHEN read_only_sql_transaction THEN
        RAISE NOTICE 'caught: %', SQLSTATE;
    END;
END $$;
EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off, BUFFERS off) INSERT INTO kept VALUES (3);
PREPARE later AS INSERT INTO kept VALUES (3);
EXECUTE later;
-- Asking for more does not help.
SET default_transaction_read_only = off;
INSERT INTO kept VALUES (3);
BEGIN READ WRITE;
INSERT INTO kept VALUES (3);
ROLLBACK;
BEGIN;
SET TRANSACTION READ WRITE;
INSERT INTO kept VALUES (3);
ROLLBACK;
SET pgraft.shm_path = '/dev/shm/other';
-- Housekeeping changes no row.
VACUUM kept;
CHECKPOINT;
-- Writes go on when the lease is back, in the same session.
\! eval "$GIVE_LEASE"
INSERT INTO kept VALUES (3);
SELECT count(*) FROM kept;
