-- A lease that ends while a transaction is open.
CREATE TABLE kept (n int);
CREATE PROCEDURE two_commits() LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO kept VALUES (1);
    COMMIT;
    INSERT INTO kept VALUES (2);
    COMMIT;
END $$;
-- Written before, committed after.
BEGIN;
INSERT INTO kept VALUES (1);
\! eval "$TAKE_LEASE"
COMMIT;
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM kept;
\! eval "$GIVE_LEASE"
-- Reading before, writing after: the statement is refused.
BEGIN;
SELECT count(*) FROM kept;
\! eval "$TAKE_LEASE"
INSERT INTO kept VALUES (1);
COMMIT;
-- A transaction that began to be read-only remains so, whatever is given.
BEGIN;
SELECT count(*) FROM kept;
\! eval "$GIVE_LEASE"
INSERT INTO kept VALUES (1);
ROLLBACK;
-- Savepoints change nothing about it.
BEGIN;
INSERT INTO kept VALUES (1);
SAVEPOINT a;
INSERT INTO kept VALUES (2);
\! eval "$TAKE_LEASE"
ROLLBACK TO a;
INSERT INTO kept VALUES (3);
ROLLBACK TO a;
COMMIT;
SELECT count(*) FROM kept;
-- Nothing to commit: nothing to refuse.
BEGIN;
SELECT count(*) FROM kept;
COMMIT;
-- A procedure that commits.
CALL two_commits();
-- Temporary tables: their rows are nobody's but the commit is a commit.
\! eval "$GIVE_LEASE"
CREATE TEMP TABLE mine (n int);
\! eval "$TAKE_LEASE"
INSERT INTO mine VALUES (1);
\! eval "$GIVE_LEASE"
CALL two_commits();
SELECT count(*) FROM kept;
