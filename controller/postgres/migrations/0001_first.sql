-- The schema of usersync. Everything is keyed by the application's schema (a target), or by a run.

CREATE TABLE usersync.target (
    schema_name text PRIMARY KEY,
    instance_id text NOT NULL,
    environment text NOT NULL,
    salt bytea NOT NULL CHECK (octet_length(salt) = 32),
    pinned_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE usersync.target IS 'Which Clerk instance a schema belongs to, and the salt of its tombstones.';

CREATE TABLE usersync.locks (
    schema_name text NOT NULL UNIQUE,
    fence bigint NOT NULL,
    run_id uuid,
    holder text NOT NULL DEFAULT '',
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (schema_name, fence)
);
COMMENT ON TABLE usersync.locks IS
    'One row per schema. run_id is NULL while nobody works. The fence is part of the key, so that a take-over waits '
    'for whoever reads the row FOR KEY SHARE, and a heartbeat does not.';

CREATE TABLE usersync.runs (
    id uuid PRIMARY KEY,
    schema_name text NOT NULL,
    resource text NOT NULL,
    holder text NOT NULL,
    instance_id text NOT NULL,
    actions text[] NOT NULL,
    dry_run boolean NOT NULL,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'succeeded', 'failed')),
    reason text,
    message text,
    outcome jsonb,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
CREATE INDEX runs_by_start ON usersync.runs (schema_name, started_at DESC);
COMMENT ON TABLE usersync.runs IS 'The audit: one row per run, counts only.';

CREATE UNLOGGED TABLE usersync.listed (
    run_id uuid NOT NULL,
    user_id text COLLATE "C" NOT NULL
);
COMMENT ON TABLE usersync.listed IS
    'The users of Clerk, while a run lasts. Unlogged: emptied by a crash, so a run counts it before it believes it.';

CREATE UNLOGGED TABLE usersync.drifted (
    run_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('missing', 'orphaned', 'duplicated')),
    user_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (run_id, kind, user_id)
);
COMMENT ON TABLE usersync.drifted IS 'The users that an observation found adrift, while a run lasts.';

CREATE UNLOGGED TABLE usersync.places (
    run_id uuid NOT NULL,
    table_name text NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    place tid NOT NULL
);
CREATE INDEX places_by_user ON usersync.places (run_id, table_name, user_id);
COMMENT ON TABLE usersync.places IS
    'Where the rows of orphans lie in tables without an index on the user id: one scan instead of one per batch.';

CREATE TABLE usersync.deliveries (
    schema_name text NOT NULL,
    message_id text NOT NULL,
    event_type text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (schema_name, message_id)
);
CREATE INDEX deliveries_by_age ON usersync.deliveries (received_at);
COMMENT ON TABLE usersync.deliveries IS 'Messages that had their effect; kept for 90 days, as long as one can be replayed.';

CREATE TABLE usersync.claims (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schema_name text NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('deletion', 'catch_up')),
    attempts integer NOT NULL DEFAULT 0,
    present_answers integer NOT NULL DEFAULT 0,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (schema_name, user_id, kind)
);
CREATE INDEX claims_by_due ON usersync.claims (schema_name, due_at);
COMMENT ON TABLE usersync.claims IS 'Users to be settled: work that was promised when a message was acknowledged.';

CREATE TABLE usersync.tombstones (
    schema_name text NOT NULL,
    user_hash bytea NOT NULL CHECK (octet_length(user_hash) = 32),
    reason text NOT NULL,
    buried_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (schema_name, user_hash)
);
COMMENT ON TABLE usersync.tombstones IS 'Deleted stays deleted: sha256(salt || instance || user id). Append-only.';

CREATE TABLE usersync.archive (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    content jsonb NOT NULL,
    reason text NOT NULL,
    run_id uuid,
    removed_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL DEFAULT now() + interval '30 days'
);
CREATE INDEX archive_by_user ON usersync.archive (schema_name, user_id);
CREATE INDEX archive_by_expiry ON usersync.archive (expires_at);
COMMENT ON TABLE usersync.archive IS 'Every row that was removed, as it was, until it expires.';

REVOKE ALL ON SCHEMA usersync FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA usersync FROM PUBLIC;
DO $$
DECLARE
    outsider text;
BEGIN
    FOR outsider IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON SCHEMA usersync FROM %I', outsider);
        EXECUTE pg_catalog.format('REVOKE ALL ON ALL TABLES IN SCHEMA usersync FROM %I', outsider);
    END LOOP;
END $$;
