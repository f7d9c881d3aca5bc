-- Two roles with what usersync needs and nothing more, for the four tables of the default spec in schema public.
-- Run it after the schema usersync is there (usersync migrate --print), as the owner of the tables, who must have CREATEROLE
-- and BYPASSRLS (on Supabase: postgres, in the SQL editor). Running it again changes nothing. It sets no password, and
-- without one nobody can log in: see README.md.
BEGIN;

DO $usersync$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['usersync_controller', 'usersync_webhook'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I LOGIN BYPASSRLS NOINHERIT CONNECTION LIMIT 20', wanted);
        END IF;
    END LOOP;
END $usersync$;

-- The application's tables. Locking a row takes UPDATE on some column of it; of the data tables nothing is ever changed.
GRANT USAGE ON SCHEMA public TO usersync_controller, usersync_webhook;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.user_progress TO usersync_controller, usersync_webhook;
-- INSERT: usersync restore puts rows back, which the webhook service never does.
GRANT SELECT, INSERT, DELETE, UPDATE (user_id)
    ON public.tasks, public.daily_checkins, public.moods TO usersync_controller;
GRANT SELECT, DELETE, UPDATE (user_id)
    ON public.tasks, public.daily_checkins, public.moods TO usersync_webhook;

-- usersync's own tables, those of later migrations as well.
GRANT USAGE ON SCHEMA usersync TO usersync_controller, usersync_webhook;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA usersync TO usersync_controller, usersync_webhook;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA usersync TO usersync_controller, usersync_webhook;
ALTER DEFAULT PRIVILEGES IN SCHEMA usersync
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO usersync_controller, usersync_webhook;
ALTER DEFAULT PRIVILEGES IN SCHEMA usersync
    GRANT EXECUTE ON FUNCTIONS TO usersync_controller, usersync_webhook;

-- What proves what was done is only ever added to.
REVOKE UPDATE, DELETE
    ON usersync.tombstones, usersync.lifted_tombstones, usersync.receipts, usersync.receipt_chain
    FROM usersync_controller, usersync_webhook;
-- Migrations are the owner's, who made the schema.
REVOKE INSERT, UPDATE, DELETE ON usersync.schema_migrations FROM usersync_controller, usersync_webhook;
-- Who is deleted stays deleted, and who may go beyond the limits is a person's word: neither comes over the internet.
REVOKE INSERT ON usersync.lifted_tombstones FROM usersync_webhook;
REVOKE INSERT, UPDATE, DELETE ON usersync.approvals FROM usersync_webhook;

COMMIT;
