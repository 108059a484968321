-- A notification is heard by others: it is a write too.
LISTEN kept;
NOTIFY other, 'heard';
\! eval "$TAKE_LEASE"
LISTEN more;
NOTIFY kept, 'unheard';
\echo :LAST_ERROR_SQLSTATE
SELECT pg_notify('kept', 'unheard');
DO $$ BEGIN PERFORM pg_notify('kept', 'unheard'); END $$;
DO $$ BEGIN NOTIFY kept; END $$;
UNLISTEN more;
\! eval "$GIVE_LEASE"
SELECT pg_notify('other', 'heard');
-- Taken before, sent at the commit: that comes too late, and is not acknowledged.
BEGIN;
NOTIFY other;
\! eval "$TAKE_LEASE"
COMMIT;
SELECT 'not reached';
