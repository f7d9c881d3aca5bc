-- Deletion that can be trusted: suspects, approvals, receipts, tombstones that can be lifted, rows that can be restored.

CREATE FUNCTION usersync.clock() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE
    AS 'SELECT pg_catalog.clock_timestamp()';
COMMENT ON FUNCTION usersync.clock() IS
    'The one clock by which grace periods, windows, leases and expiries are measured. A query that is to use an index '
    'asks for (SELECT usersync.clock()).';

CREATE FUNCTION usersync.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $refuse$
BEGIN
    RAISE EXCEPTION 'usersync.% is append-only: its rows are neither changed nor removed', TG_TABLE_NAME;
END
$refuse$;

ALTER TABLE usersync.target ADD COLUMN users_with_rows bigint, ADD COLUMN users_counted_at timestamptz;
COMMENT ON COLUMN usersync.target.users_with_rows IS
    'Users with rows when they were last counted: what the percentage of the limits is of, for events between runs.';

ALTER TABLE usersync.locks ALTER COLUMN taken_at SET DEFAULT usersync.clock();
ALTER TABLE usersync.locks ALTER COLUMN heartbeat_at SET DEFAULT usersync.clock();
ALTER TABLE usersync.runs ALTER COLUMN started_at SET DEFAULT usersync.clock();
ALTER TABLE usersync.deliveries ALTER COLUMN received_at SET DEFAULT usersync.clock();
ALTER TABLE usersync.claims ALTER COLUMN recorded_at SET DEFAULT usersync.clock();
ALTER TABLE usersync.claims ALTER COLUMN due_at SET DEFAULT usersync.clock();
ALTER TABLE usersync.tombstones ALTER COLUMN buried_at SET DEFAULT usersync.clock();
ALTER TABLE usersync.target ALTER COLUMN pinned_at SET DEFAULT usersync.clock();

CREATE TABLE usersync.suspects (
    schema_name text NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    instance_id text NOT NULL,
    epoch text NOT NULL,
    absent_since timestamptz NOT NULL,
    last_absent_at timestamptz NOT NULL,
    PRIMARY KEY (schema_name, user_id)
);
COMMENT ON TABLE usersync.suspects IS
    'Users with rows whom consecutive complete listings left out: from the start of the first to that of the latest.';

ALTER TABLE usersync.drifted DROP CONSTRAINT drifted_kind_check;
ALTER TABLE usersync.drifted ADD CONSTRAINT drifted_kind_check
    CHECK (kind IN ('missing', 'orphaned', 'duplicated', 'due', 'approved'));

CREATE TABLE usersync.approvals (
    schema_name text NOT NULL,
    digest text NOT NULL,
    header text NOT NULL,
    set_number bigint NOT NULL,
    users bigint NOT NULL,
    held_since timestamptz NOT NULL DEFAULT usersync.clock(),
    last_held_at timestamptz NOT NULL DEFAULT usersync.clock(),
    approved_at timestamptz,
    approved_by text,
    used_at timestamptz,
    run_id uuid,
    PRIMARY KEY (schema_name, digest)
);
COMMENT ON TABLE usersync.approvals IS
    'The sets that were held back, and who permitted which. The users of a set are those of held_users with its number '
    'or a lower one.';

CREATE TABLE usersync.held_users (
    schema_name text NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    set_number bigint NOT NULL,
    PRIMARY KEY (schema_name, user_id)
);
COMMENT ON TABLE usersync.held_users IS
    'The users held back at present, each with the number of the first set that had him without a break.';

ALTER TABLE usersync.runs ADD COLUMN approval text, ADD COLUMN approved_by text;

ALTER TABLE usersync.claims DROP CONSTRAINT claims_kind_check;
ALTER TABLE usersync.claims ADD CONSTRAINT claims_kind_check CHECK (kind IN ('deletion', 'catch_up', 'second_sweep'));
ALTER TABLE usersync.claims ADD COLUMN held_back_at timestamptz;
COMMENT ON COLUMN usersync.claims.held_back_at IS
    'Set while a proved deletion waits because it would pass the limits; a run counts its user among those to go.';

ALTER TABLE usersync.tombstones DROP CONSTRAINT tombstones_pkey;
ALTER TABLE usersync.tombstones ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;
CREATE INDEX tombstones_by_user ON usersync.tombstones (schema_name, user_hash);
CREATE TABLE usersync.lifted_tombstones (
    tombstone_id bigint PRIMARY KEY REFERENCES usersync.tombstones,
    lifted_by text NOT NULL,
    lifted_at timestamptz NOT NULL DEFAULT usersync.clock()
);
COMMENT ON TABLE usersync.lifted_tombstones IS 'Tombstones that count no more, because the user was restored.';
CREATE VIEW usersync.buried AS
    SELECT t.schema_name, t.user_hash, t.id AS tombstone_id FROM usersync.tombstones AS t
    WHERE NOT EXISTS (SELECT FROM usersync.lifted_tombstones AS l WHERE l.tombstone_id = t.id);
COMMENT ON VIEW usersync.buried IS 'The tombstones that stand.';

CREATE TABLE usersync.receipts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schema_name text NOT NULL,
    instance_id text NOT NULL,
    user_hash bytea NOT NULL CHECK (octet_length(user_hash) = 32),
    act text NOT NULL CHECK (act IN ('begun', 'archived', 'erased', 'retained', 'restored')),
    reason text NOT NULL,
    requested_by text NOT NULL,
    counted boolean NOT NULL,
    approval text,
    run_id uuid,
    rows jsonb NOT NULL,
    issued_at timestamptz NOT NULL DEFAULT usersync.clock()
);
CREATE INDEX receipts_by_time ON usersync.receipts (schema_name, issued_at);
CREATE INDEX receipts_by_user ON usersync.receipts (schema_name, user_hash);
COMMENT ON TABLE usersync.receipts IS
    'What became of a user: when, on whose request, rows per table. `counted`: against the limits. `begun`: the rows of '
    'a user with very many are still being removed.';

CREATE TABLE usersync.receipt_chain (
    schema_name text NOT NULL,
    position bigint NOT NULL,
    receipt_id bigint NOT NULL UNIQUE REFERENCES usersync.receipts,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (schema_name, position)
);
COMMENT ON TABLE usersync.receipt_chain IS
    'Each link is the hash of the one before it and of its receipt, added after the fact: whoever kept a head sees '
    'what was changed or removed since.';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usersync.tombstones
    FOR EACH STATEMENT EXECUTE FUNCTION usersync.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usersync.lifted_tombstones
    FOR EACH STATEMENT EXECUTE FUNCTION usersync.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usersync.receipts
    FOR EACH STATEMENT EXECUTE FUNCTION usersync.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usersync.receipt_chain
    FOR EACH STATEMENT EXECUTE FUNCTION usersync.refuse_change();

CREATE TABLE usersync.layouts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    columns jsonb NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    UNIQUE (schema_name, table_name, hash)
);
COMMENT ON TABLE usersync.layouts IS
    'The columns of a table when rows of it were archived: a list of {name, type, generated}, in their order.';

ALTER TABLE usersync.archive ADD COLUMN layout_id bigint REFERENCES usersync.layouts, ADD COLUMN restored_at timestamptz;
ALTER TABLE usersync.archive ALTER COLUMN removed_at SET DEFAULT usersync.clock();
ALTER TABLE usersync.archive ALTER COLUMN expires_at SET DEFAULT usersync.clock() + interval '30 days';
COMMENT ON COLUMN usersync.archive.content IS
    'The row as {column: text}: each value as PostgreSQL writes it, so that what is put back is what was removed; an SQL '
    'NULL is null.';

CREATE TABLE usersync.unfinished (
    schema_name text NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    act text NOT NULL CHECK (act IN ('archived', 'erased')),
    reason text NOT NULL,
    approval text,
    begun_at timestamptz NOT NULL DEFAULT usersync.clock(),
    rows jsonb NOT NULL DEFAULT '{}',
    under_way text,
    searched_to text,
    PRIMARY KEY (schema_name, user_id)
);
COMMENT ON TABLE usersync.unfinished IS
    'Users with so many rows that they leave in batches: buried already, not yet gone, not to be restored before. '
    'under_way: the table that rows are taken from, empty after the last; searched_to: the place of the last row taken '
    'from a table without an index, so that it is read once and not once per batch.';

REVOKE ALL ON ALL TABLES IN SCHEMA usersync FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA usersync FROM PUBLIC;
DO $$
DECLARE
    outsider text;
BEGIN
    FOR outsider IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON ALL TABLES IN SCHEMA usersync FROM %I', outsider);
        EXECUTE pg_catalog.format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA usersync FROM %I', outsider);
    END LOOP;
END $$;
