-- Mapped columns: what Clerk says of users while a run lasts, and of which version the columns are.

CREATE TABLE usersync.versions (
    schema_name text NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (schema_name, user_id)
);
COMMENT ON TABLE usersync.versions IS
    'Of which version of Clerk''s user the mapped columns are: its updated_at, in milliseconds. Written with them in one '
    'transaction, so that no earlier version is written over a later one.';

CREATE UNLOGGED TABLE usersync.listed_values (
    run_id uuid NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    updated_at bigint NOT NULL,
    fields text[] NOT NULL
);
COMMENT ON TABLE usersync.listed_values IS
    'What Clerk said of its users, while a run lasts: one field for each mapped column, "=" and the text of the value, '
    'NULL for NULL, empty where the column is left as it is.';

CREATE UNLOGGED TABLE usersync.owed_values (
    run_id uuid NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('missing', 'outdated', 'behind')),
    updated_at bigint NOT NULL,
    fields text[] NOT NULL,
    PRIMARY KEY (run_id, user_id)
);
COMMENT ON TABLE usersync.owed_values IS
    'Of listed_values those that are to be written: of users without a profile row, of those whose columns differ, and '
    'of those who are in step, but noted as of an earlier version.';

ALTER TABLE usersync.claims DROP CONSTRAINT claims_kind_check;
ALTER TABLE usersync.claims ADD CONSTRAINT claims_kind_check
    CHECK (kind IN ('deletion', 'catch_up', 'second_sweep', 'holdback', 'creation', 'own_request', 'refresh'));
ALTER TABLE usersync.claims ADD COLUMN renewals integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN usersync.claims.renewals IS
    'How often a message about the same user began the claim anew: whoever took it before asked Clerk too early.';

REVOKE ALL ON ALL TABLES IN SCHEMA usersync FROM PUBLIC;
DO $$
DECLARE
    outsider text;
BEGIN
    FOR outsider IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON ALL TABLES IN SCHEMA usersync FROM %I', outsider);
    END LOOP;
END $$;
