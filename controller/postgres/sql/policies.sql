-- what_supabase_has()
-- By the catalogue: to_regprocedure would ask for the right to use the schema auth.
SELECT
    EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = 'authenticated') AS role,
    EXISTS (
        SELECT FROM pg_proc AS f JOIN pg_namespace AS n ON n.oid = f.pronamespace
        WHERE n.nspname = 'auth' AND f.proname = 'jwt' AND f.pronargs = 0
    ) AS jwt;

-- table_security(schema_name, tables, user_id_columns)
SELECT
    c.oid AS oid,
    c.relname::text AS name,
    quote_ident(a.attname) AS user_id,
    c.relrowsecurity AS enabled,
    pg_has_role(c.relowner, 'USAGE') AS alterable,
    EXISTS (
        SELECT FROM pg_roles AS r
        WHERE r.rolname IN ('anon', 'authenticated') AND has_schema_privilege(r.oid, n.oid, 'USAGE') AND (
            has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE')
            OR has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE')
        )
    ) AS reachable
FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS wanted (name, user_id, place)
JOIN pg_namespace AS n ON n.nspname = $1::text
JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.name AND c.relkind IN ('r', 'p')
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = wanted.user_id AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY wanted.place;

-- policies_of(oids)
SELECT
    p.polrelid AS oid,
    p.polname::text AS name,
    p.polcmd::text AS command,
    p.polpermissive AS permissive,
    ARRAY(
        SELECT coalesce(r.rolname::text, 'public') FROM unnest(p.polroles) AS o (oid)
        LEFT JOIN pg_roles AS r ON r.oid = o.oid
    ) AS roles,
    pg_get_expr(p.polqual, p.polrelid) AS using_sql,
    pg_get_expr(p.polwithcheck, p.polrelid) AS check_sql,
    EXISTS (
        SELECT FROM pg_depend AS d
        JOIN pg_proc AS f ON f.oid = d.refobjid
        JOIN pg_namespace AS n ON n.oid = f.pronamespace
        WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_proc'::regclass
            AND n.nspname = 'auth' AND f.proname = 'uid' AND f.prorettype = 'uuid'::regtype
    ) AS casts_to_uuid
FROM pg_policy AS p
WHERE p.polrelid = ANY($1::oid[])
ORDER BY p.polrelid, p.polname;

-- enable()
ALTER TABLE {schema}.{table} ENABLE ROW LEVEL SECURITY;

-- drop()
DROP POLICY {policy} ON {schema}.{table};

-- create_select()
CREATE POLICY usersync_select ON {schema}.{table} FOR SELECT TO authenticated
    USING ((SELECT auth.jwt() ->> 'sub') = {user_id});

-- create_insert()
CREATE POLICY usersync_insert ON {schema}.{table} FOR INSERT TO authenticated
    WITH CHECK ((SELECT auth.jwt() ->> 'sub') = {user_id});

-- create_update()
CREATE POLICY usersync_update ON {schema}.{table} FOR UPDATE TO authenticated
    USING ((SELECT auth.jwt() ->> 'sub') = {user_id})
    WITH CHECK ((SELECT auth.jwt() ->> 'sub') = {user_id});

-- create_delete()
CREATE POLICY usersync_delete ON {schema}.{table} FOR DELETE TO authenticated
    USING ((SELECT auth.jwt() ->> 'sub') = {user_id});
