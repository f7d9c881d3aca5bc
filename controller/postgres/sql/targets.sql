-- pinned_instance(schema_name)
SELECT instance_id FROM usersync.target WHERE schema_name = $1;

-- pin_instance(schema_name, instance_id, environment, salt)
INSERT INTO usersync.target (schema_name, instance_id, environment, salt)
VALUES ($1, $2, $3, $4)
ON CONFLICT (schema_name) DO NOTHING;

-- distinct_user_ids()
-- One of the tables sampled from.
SELECT DISTINCT usersync_row.{user_id}::text COLLATE "C" AS user_id FROM {schema}.{table} AS usersync_row

-- sample_user_ids(pattern, limit)
-- By hash: spread over the ids, whatever their order in the table; the same ones each time.
SELECT user_id FROM ({parts}) AS owners
WHERE user_id ~ $1 AND octet_length(user_id) <= 255
GROUP BY user_id
ORDER BY hashtextextended(user_id, 0)
LIMIT $2;

-- describe_tables(schema_name, tables, user_id_columns, created_at_columns)
SELECT
    c.oid AS oid,
    c.relname::text AS name,
    c.relkind::text AS kind,
    row_security_active(c.oid) AS hidden,
    has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable,
    -- Rows on another server are outside of our transaction, and their places are not what ours are.
    CASE WHEN c.relhassubclass THEN (
        WITH RECURSIVE family (member) AS (
            SELECT c.oid UNION SELECT i.inhrelid FROM family AS f JOIN pg_inherits AS i ON i.inhparent = f.member
        )
        SELECT min(p.relname::text) FROM family AS f JOIN pg_class AS p ON p.oid = f.member WHERE p.relkind = 'f'
    ) END AS foreign_part,
    -- Columns of an heir alone are not seen through the table, and so not archived.
    CASE WHEN c.relhassubclass THEN (
        WITH RECURSIVE family (member) AS (
            SELECT c.oid UNION SELECT i.inhrelid FROM family AS f JOIN pg_inherits AS i ON i.inhparent = f.member
        )
        SELECT min(f.member::regclass::text) FROM family AS f WHERE EXISTS (
            SELECT FROM pg_attribute AS own
            WHERE own.attrelid = f.member AND own.attnum > 0 AND NOT own.attisdropped AND NOT EXISTS (
                SELECT FROM pg_attribute AS same
                WHERE same.attrelid = c.oid AND same.attname = own.attname AND NOT same.attisdropped
            )
        )
    ) END AS wider_heir,
    u.attnum IS NOT NULL AS has_user_id,
    format_type(u.atttypid, u.atttypmod) AS user_id_type,
    coalesce(nullif(t.typbasetype, 0), t.oid) IN ('text'::regtype, 'varchar'::regtype) AS holds_text,
    coalesce(l.collisdeterministic, true) AS deterministic,
    m.attnum IS NOT NULL AS has_created_at,
    m.attnum IS NOT NULL AND NOT m.atthasdef AND m.attgenerated = ''
        AND m.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype) AS sets_created_at,
    EXISTS (
        SELECT FROM pg_index AS i
        JOIN pg_class AS x ON x.oid = i.indexrelid
        JOIN pg_am AS a ON a.oid = x.relam
        WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND a.amname IN ('btree', 'hash')
            AND i.indkey[0] = u.attnum AND i.indcollation[0] = u.attcollation
    ) AS indexed,
    EXISTS (
        SELECT FROM pg_index AS i
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indnkeyatts = 1
            AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indkey[0] = u.attnum
            AND i.indcollation[0] = u.attcollation
    ) AS unique_user,
    ARRAY(
        SELECT k.attname::text FROM pg_index AS i
        CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS o (number, place)
        JOIN pg_attribute AS k ON k.attrelid = i.indrelid AND k.attnum = o.number
        WHERE i.indrelid = c.oid AND i.indisprimary AND o.place <= i.indnkeyatts
        ORDER BY o.place
    ) AS primary_key,
    ARRAY(
        SELECT r.attname::text FROM pg_attribute AS r
        WHERE r.attrelid = c.oid AND r.attnum > 0 AND NOT r.attisdropped AND r.attnotnull AND NOT r.atthasdef
            AND r.attidentity = '' AND r.attgenerated = ''
            AND r.attname NOT IN (wanted.user_id, wanted.created_at)
        ORDER BY r.attnum
    ) AS required,
    (
        SELECT json_agg(json_build_object(
            'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'generated', a.attgenerated <> ''
        ) ORDER BY a.attnum)::text
        FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS columns
FROM unnest($2::text[], $3::text[], $4::text[]) AS wanted (name, user_id, created_at)
JOIN pg_namespace AS n ON n.nspname = $1::text
JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.name
LEFT JOIN pg_attribute AS u
    ON u.attrelid = c.oid AND u.attname = wanted.user_id AND u.attnum > 0 AND NOT u.attisdropped
LEFT JOIN pg_type AS t ON t.oid = u.atttypid
LEFT JOIN pg_collation AS l ON l.oid = u.attcollation
LEFT JOIN pg_attribute AS m
    ON m.attrelid = c.oid AND m.attname = wanted.created_at AND m.attnum > 0 AND NOT m.attisdropped;

-- references_to(oids)
-- The foreign keys that point at listed tables or at parts of them: a DELETE reaches partitions and heirs too.
-- Of a key that the server has copied to partitions only the uppermost that points here.
WITH RECURSIVE family (listed, member) AS (
    SELECT t.oid, t.oid FROM unnest($1::oid[]) AS t (oid)
    UNION
    SELECT f.listed, i.inhrelid FROM family AS f JOIN pg_inherits AS i ON i.inhparent = f.member
)
SELECT DISTINCT
    k.conname::text AS name,
    coalesce(c.listed, k.conrelid) AS child_oid,
    p.listed AS parent_oid,
    cn.nspname::text AS child_schema,
    ct.relname::text AS child,
    pn.nspname::text AS parent_schema,
    pt.relname::text AS parent,
    c.listed IS NOT NULL AS listed,
    k.confdeltype::text AS on_delete,
    k.condeferrable AS deferrable,
    has_schema_privilege(cn.oid, 'USAGE') AND has_table_privilege(ct.oid, 'SELECT') AND NOT row_security_active(ct.oid)
        AS readable,
    columns.of_child AS child_columns,
    columns.of_parent AS parent_columns,
    columns.types AS types,
    columns.matching AS matching,
    identity.columns AS primary_key,
    identity.locating AS locating
FROM pg_constraint AS k
JOIN family AS p ON p.member = k.confrelid
LEFT JOIN family AS c ON c.member = k.conrelid
JOIN pg_class AS ct ON ct.oid = k.conrelid
JOIN pg_namespace AS cn ON cn.oid = ct.relnamespace
JOIN pg_class AS pt ON pt.oid = k.confrelid
JOIN pg_namespace AS pn ON pn.oid = pt.relnamespace
-- As the server's own triggers compare: by the operators of the key, which search_path need not show, and by the
-- parent's collation.
CROSS JOIN LATERAL (
    SELECT
        array_agg(ca.attname::text ORDER BY o.place) AS of_child,
        array_agg(pa.attname::text ORDER BY o.place) AS of_parent,
        -- Without length and precision, by which a cast would cut.
        array_agg(format_type(ca.atttypid, -1) ORDER BY o.place) AS types,
        string_agg(
            format(
                'usersync_parent.%I OPERATOR(%I.%s) usersync_child.%I%s', pa.attname, opn.nspname, op.oprname,
                ca.attname,
                CASE WHEN pa.attcollation <> ca.attcollation THEN ' COLLATE ' || pa.attcollation::regcollation ELSE '' END
            ),
            ' AND ' ORDER BY o.place
        ) AS matching
    FROM unnest(k.conkey, k.confkey, k.conpfeqop) WITH ORDINALITY AS o (child, parent, operator, place)
    JOIN pg_attribute AS ca ON ca.attrelid = k.conrelid AND ca.attnum = o.child
    JOIN pg_attribute AS pa ON pa.attrelid = k.confrelid AND pa.attnum = o.parent
    JOIN pg_operator AS op ON op.oid = o.operator
    JOIN pg_namespace AS opn ON opn.oid = op.oprnamespace
) AS columns
-- A child's row by its primary key as texts, compared by the operators of the key's index.
CROSS JOIN LATERAL (
    SELECT
        coalesce(array_agg(a.attname::text ORDER BY o.place), ARRAY[]::text[]) AS columns,
        coalesce(string_agg(
            format(
                'usersync_child.%I OPERATOR(%I.%s) (usersync_link.primary_key ->> %L)::%s', a.attname, opn.nspname,
                op.oprname, a.attname, format_type(a.atttypid, -1)
            ),
            ' AND ' ORDER BY o.place
        ), '') AS locating
    FROM pg_index AS i
    CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY AS o (number, class, place)
    JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = o.number
    JOIN pg_opclass AS oc ON oc.oid = o.class
    JOIN pg_amop AS ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3 AND ao.amoplefttype = oc.opcintype
        AND ao.amoprighttype = oc.opcintype
    JOIN pg_operator AS op ON op.oid = ao.amopopr
    JOIN pg_namespace AS opn ON opn.oid = op.oprnamespace
    WHERE i.indrelid = k.conrelid AND i.indisprimary AND o.place <= i.indnkeyatts
) AS identity
WHERE k.contype = 'f' AND NOT EXISTS (
    SELECT FROM pg_constraint AS upper
    JOIN family AS u ON u.member = upper.confrelid
    WHERE upper.oid = k.conparentid
)
ORDER BY child_schema, child, name, parent_schema, parent, child_oid, parent_oid;

-- unlisted_tables(schema_name, tables, user_id_columns)
SELECT DISTINCT c.relname::text AS name, a.attname::text AS user_id FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = $1::text
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = ANY($3::text[]) AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND NOT c.relname = ANY($2::text[])
ORDER BY 1, 2;
