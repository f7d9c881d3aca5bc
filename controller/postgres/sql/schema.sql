-- lock_migrations()
SELECT pg_advisory_xact_lock(hashtextextended('usersync.schema_migrations', 0));

-- schema_exists()
SELECT to_regnamespace('usersync') IS NOT NULL;

-- create_schema()
CREATE SCHEMA usersync;

-- create_schema_migrations()
CREATE TABLE IF NOT EXISTS usersync.schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- migrations_are_recorded()
SELECT to_regclass('usersync.schema_migrations') IS NOT NULL;

-- recorded_versions()
SELECT version FROM usersync.schema_migrations ORDER BY version;

-- record_migration(version, name)
INSERT INTO usersync.schema_migrations (version, name) VALUES ($1, $2);

-- current_role()
SELECT current_user::text;
