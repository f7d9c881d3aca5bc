-- mapped_columns(oid, names)
SELECT
    a.attname::text AS name,
    format_type(a.atttypid, a.atttypmod) AS type,
    a.attnotnull AS refuses_null,
    a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS required,
    a.attgenerated <> '' OR a.attidentity = 'a' AS computed
FROM pg_attribute AS a
WHERE a.attrelid = $1 AND a.attname = ANY($2::text[]) AND a.attnum > 0 AND NOT a.attisdropped;

-- forget_owed(run_id)
DELETE FROM usersync.owed_values WHERE run_id = $1;

-- owe_missing(run_id)
INSERT INTO usersync.owed_values (run_id, user_id, kind, updated_at, fields)
SELECT DISTINCT ON (m.user_id) m.run_id, m.user_id, d.kind, m.updated_at, m.fields
FROM usersync.listed_values AS m
JOIN usersync.drifted AS d ON d.run_id = m.run_id AND d.kind = 'missing' AND d.user_id = m.user_id
WHERE m.run_id = $1
ORDER BY m.user_id, m.updated_at DESC;

-- refuted()
-- Noted as of long before the listing, or of a time to come: should it be later than what is listed, Clerk never had it.
v.updated_at NOT BETWEEN (extract(epoch FROM r.started_at) * 1000)::bigint - 600000
    AND (extract(epoch FROM (SELECT usersync.clock())) * 1000)::bigint + 600000

-- owe_others(run_id, schema_name)
-- Listed as of an earlier version than noted: an event was faster than the listing, or was none of Clerk's.
INSERT INTO usersync.owed_values (run_id, user_id, kind, updated_at, fields)
SELECT DISTINCT ON (c.user_id)
    $1, c.user_id, CASE WHEN c.differs THEN 'outdated' ELSE 'behind' END, c.updated_at, c.fields
FROM (
    SELECT m.user_id, m.updated_at, m.fields, v.updated_at AS known, {differs} AS differs
    FROM usersync.listed_values AS m
    JOIN {schema}.{table} AS usersync_row ON usersync_row.{user_id}::text COLLATE "C" = m.user_id
    JOIN usersync.runs AS r ON r.id = m.run_id
    LEFT JOIN usersync.versions AS v ON v.schema_name = $2 AND v.user_id = m.user_id
    WHERE m.run_id = $1 AND (v.updated_at IS NULL OR m.updated_at >= v.updated_at OR {refuted})
) AS c
JOIN usersync.target AS t ON t.schema_name = $2
WHERE (c.differs OR c.updated_at > c.known) AND NOT EXISTS (
    SELECT FROM usersync.buried AS s
    WHERE s.schema_name = $2 AND s.user_hash = sha256(t.salt || convert_to(t.instance_id || c.user_id, 'UTF8'))
)
ORDER BY c.user_id, c.updated_at DESC, c.differs DESC;

-- drop_superseded(run_id)
-- Who is listed twice, because he was moved meanwhile, counts as he was listed later.
DELETE FROM usersync.owed_values AS o
USING usersync.listed_values AS m
WHERE o.run_id = $1 AND m.run_id = $1 AND m.user_id = o.user_id AND m.updated_at > o.updated_at;

-- count_outdated(run_id)
SELECT count(*) FROM usersync.owed_values WHERE run_id = $1 AND kind = 'outdated';

-- owed_page(run_id, kinds, after, size)
SELECT user_id FROM usersync.owed_values
WHERE run_id = $1 AND kind = ANY($2::text[]) AND user_id > $3
ORDER BY user_id
LIMIT $4;

-- owed_among(run_id, schema_name, user_ids)
SELECT o.user_id, o.updated_at, o.fields, v.updated_at AS known, v.updated_at > o.updated_at AND {refuted} AS refuted
FROM usersync.owed_values AS o
JOIN usersync.runs AS r ON r.id = o.run_id
LEFT JOIN usersync.versions AS v ON v.schema_name = $2 AND v.user_id = o.user_id
WHERE o.run_id = $1 AND o.user_id = ANY($3::text[]);

-- standing(schema_name, user_id, fields)
-- `differs` is NULL where there is no row.
SELECT
    (SELECT v.updated_at FROM usersync.versions AS v WHERE v.schema_name = $1 AND v.user_id = $2) AS known,
    (
        SELECT bool_or({differs})
        FROM {schema}.{table} AS usersync_row CROSS JOIN (SELECT $3::text::text[] AS fields) AS m
        WHERE usersync_row.{user_id} = $2::text
    ) AS differs;

-- update_profiles(user_ids, fields)
UPDATE {schema}.{table} AS usersync_row
SET {assignments}
FROM (SELECT w.id, w.fields::text[] AS fields FROM unnest($1::text[], $2::text[]) AS w (id, fields)) AS m
WHERE usersync_row.{user_id} = m.id AND ({differs})
RETURNING m.id AS user_id;

-- insert_with_values_by_index(user_ids, fields)
INSERT INTO {schema}.{table} ({columns})
SELECT {values}
FROM (SELECT w.id, w.fields::text[] AS fields FROM unnest($1::text[], $2::text[]) AS w (id, fields)) AS u
ON CONFLICT ({user_id}) DO NOTHING
RETURNING {user_id}::text AS user_id;

-- insert_with_values_under_lock(user_ids, fields)
INSERT INTO {schema}.{table} ({columns})
SELECT {values}
FROM (SELECT w.id, w.fields::text[] AS fields FROM unnest($1::text[], $2::text[]) AS w (id, fields)) AS u
WHERE NOT EXISTS (SELECT FROM {schema}.{table} AS usersync_row WHERE usersync_row.{user_id} = u.id)
RETURNING {user_id}::text AS user_id;

-- raise_versions(schema_name, user_ids, updated_at)
INSERT INTO usersync.versions AS v (schema_name, user_id, updated_at)
SELECT $1, u.id, u.updated_at FROM unnest($2::text[], $3::bigint[]) AS u (id, updated_at)
ON CONFLICT (schema_name, user_id) DO UPDATE SET updated_at = excluded.updated_at
WHERE v.updated_at < excluded.updated_at;

-- forget_versions(schema_name, user_ids)
DELETE FROM usersync.versions WHERE schema_name = $1 AND user_id = ANY($2::text[]);

-- forget_strangers(run_id, schema_name)
-- Not of who has a row still: it may hold more than somebody was told by Clerk who has not written it yet.
DELETE FROM usersync.versions AS v
WHERE v.schema_name = $2 AND NOT EXISTS (
    SELECT FROM usersync.listed AS l WHERE l.run_id = $1 AND l.user_id = v.user_id
) AND NOT EXISTS (
    SELECT FROM {schema}.{table} AS usersync_row WHERE usersync_row.{user_id}::text COLLATE "C" = v.user_id
);

-- forget_listed_values_user(schema_name, user_id)
DELETE FROM usersync.listed_values
WHERE user_id = $2 AND run_id IN (SELECT id FROM usersync.runs WHERE schema_name = $1);

-- forget_owed_values_user(schema_name, user_id)
DELETE FROM usersync.owed_values
WHERE user_id = $2 AND run_id IN (SELECT id FROM usersync.runs WHERE schema_name = $1);
