-- server()
SELECT
    quote_ident(current_user) AS role,
    r.rolsuper AS superuser,
    pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean AS read_only,
    has_database_privilege(current_database(), 'CREATE') AS may_create,
    clock_timestamp() AS clock
FROM pg_roles AS r WHERE r.rolname = current_user;

-- session()
SELECT pg_backend_pid();

-- privileges(schema_name, tables, user_id_columns)
SELECT
    c.relname::text AS name,
    format('%I.%I', n.nspname, c.relname) AS sql_name,
    quote_ident(wanted.user_id) AS sql_column,
    has_schema_privilege(n.oid, 'USAGE') AS may_use_schema,
    has_table_privilege(c.oid, 'SELECT') AS may_select,
    has_table_privilege(c.oid, 'INSERT') AS may_insert,
    has_any_column_privilege(c.oid, 'UPDATE') AS may_update,
    has_table_privilege(c.oid, 'DELETE') AS may_delete
FROM unnest($2::text[], $3::text[]) AS wanted (name, user_id)
JOIN pg_namespace AS n ON n.nspname = $1::text
JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.name;

-- count_foreign(pattern)
SELECT count(*) FROM {schema}.{table} AS usersync_row
WHERE usersync_row.{user_id} <> ''
    AND (usersync_row.{user_id}::text !~ $1 OR octet_length(usersync_row.{user_id}::text) > 255);
