-- Links: which rows that stayed referred to rows that were removed, so that these can be put back with them.

CREATE TABLE usersync.links (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schema_name text NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    table_name text NOT NULL,
    child_schema text NOT NULL,
    child_table text NOT NULL,
    constraint_name text NOT NULL,
    primary_key jsonb NOT NULL,
    held jsonb NOT NULL,
    became jsonb,
    named text[] COLLATE "C" NOT NULL DEFAULT '{}',
    removed_at timestamptz NOT NULL DEFAULT usersync.clock(),
    expires_at timestamptz NOT NULL DEFAULT usersync.clock() + interval '30 days',
    restored_at timestamptz
);
CREATE INDEX links_by_user ON usersync.links (schema_name, user_id);
CREATE INDEX links_by_named ON usersync.links USING gin (named);
CREATE INDEX links_by_expiry ON usersync.links (expires_at);
CREATE INDEX links_under_way ON usersync.links (schema_name) WHERE became IS NULL;
COMMENT ON TABLE usersync.links IS
    'Rows that stayed (child_schema, child_table, primary_key) and lost what referred to a row of a removed user in '
    'table_name, by a foreign key with ON DELETE SET NULL or SET DEFAULT: held is what its columns held, became what the '
    'deletion made of them, as {column: text}; named: the users whose ids stand in any of these.';

REVOKE ALL ON ALL TABLES IN SCHEMA usersync FROM PUBLIC;
DO $$
DECLARE
    outsider text;
BEGIN
    FOR outsider IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON ALL TABLES IN SCHEMA usersync FROM %I', outsider);
    END LOOP;
END $$;
