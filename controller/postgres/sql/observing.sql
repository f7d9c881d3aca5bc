-- count_listed(run_id)
SELECT count(*) FROM usersync.listed WHERE run_id = $1;

-- forget_observed(run_id)
DELETE FROM usersync.drifted WHERE run_id = $1 AND kind IN ('missing', 'orphaned', 'duplicated');

-- rows_per_user()
-- One of the tables observed. Grouped before anything is joined: a table has many rows per user.
SELECT {place}::int AS place, usersync_row.{user_id}::text COLLATE "C" AS user_id, count(*) AS rows
FROM {schema}.{table} AS usersync_row
GROUP BY usersync_row.{user_id}

-- observe(run_id, schema_name, pattern, has_profile, profile_place, retains)
-- `retains`: rows of the buried stay by policy, and are no drift; but for what came back of who was erased on request.
WITH owned AS MATERIALIZED ({parts}),
owners AS (
    SELECT user_id, coalesce(sum(rows) FILTER (WHERE place = $5), 0) AS profile_rows
    FROM owned WHERE user_id <> '' GROUP BY user_id
),
desired AS (
    SELECT DISTINCT user_id FROM usersync.listed WHERE run_id = $1
),
compared AS MATERIALIZED (
    SELECT
        coalesce(d.user_id, o.user_id) AS user_id,
        d.user_id IS NOT NULL AS listed,
        o.user_id IS NOT NULL AS owning,
        coalesce(o.profile_rows, 0) AS profile_rows,
        -- What Clerk listed is of Clerk's form; only the others need the expression.
        d.user_id IS NOT NULL OR (o.user_id ~ $3 AND octet_length(o.user_id) <= 255) AS ours
    FROM desired AS d FULL JOIN owners AS o ON o.user_id = d.user_id
),
unlisted AS MATERIALIZED (
    SELECT user_id, ours FROM compared WHERE NOT listed
),
adrift AS (
    INSERT INTO usersync.drifted (run_id, kind, user_id)
    SELECT $1, kind, user_id FROM (
        SELECT 'missing' AS kind, c.user_id
        FROM compared AS c LEFT JOIN usersync.target AS t ON t.schema_name = $2
        WHERE $4 AND c.listed AND c.profile_rows = 0 AND NOT EXISTS (
            SELECT FROM usersync.buried AS s
            WHERE s.schema_name = $2
                AND s.user_hash = sha256(t.salt || convert_to(t.instance_id || c.user_id, 'UTF8'))
        )
        UNION ALL
        SELECT 'orphaned', u.user_id
        FROM unlisted AS u LEFT JOIN usersync.target AS t ON t.schema_name = $2
        WHERE u.ours AND NOT ($6 AND EXISTS (
            SELECT FROM usersync.buried AS s
            WHERE s.schema_name = $2
                AND s.user_hash = sha256(t.salt || convert_to(t.instance_id || u.user_id, 'UTF8'))
        ) AND NOT EXISTS (
            SELECT FROM usersync.receipts AS r
            WHERE r.schema_name = $2 AND r.act = 'erased' AND r.reason = 'requested'
                AND r.user_hash = sha256(t.salt || convert_to(t.instance_id || u.user_id, 'UTF8'))
        ))
        UNION ALL
        SELECT 'duplicated', user_id FROM compared WHERE ours AND profile_rows > 1
    ) AS found
    RETURNING kind
),
per_table AS (
    SELECT
        o.place,
        sum(o.rows) AS rows,
        count(*) FILTER (WHERE o.user_id <> '' AND u.user_id IS NULL) AS users,
        coalesce(sum(o.rows) FILTER (WHERE u.ours), 0) AS orphaned_rows
    FROM owned AS o LEFT JOIN unlisted AS u ON u.user_id = o.user_id
    GROUP BY o.place
)
SELECT
    (SELECT count(*) FROM adrift WHERE kind = 'missing') AS missing,
    (SELECT json_agg(per_table)::text FROM per_table) AS per_table,
    count(*) FILTER (WHERE listed) AS clerk_users,
    count(*) FILTER (WHERE ours AND owning) AS users_with_rows,
    count(*) FILTER (WHERE listed AND profile_rows > 0) AS synced,
    count(*) FILTER (WHERE listed AND NOT owning) AS clerk_only,
    (SELECT count(*) FROM adrift WHERE kind = 'orphaned') AS orphaned,
    count(*) FILTER (WHERE ours AND NOT listed) AS unlisted,
    coalesce(sum(profile_rows - 1) FILTER (WHERE ours AND profile_rows > 1), 0)::bigint AS duplicates,
    count(*) FILTER (WHERE ours AND profile_rows > 1) AS duplicated_users,
    count(*) FILTER (WHERE NOT ours) AS "foreign"
FROM compared;

-- drifted_page(run_id, kind, after, size)
SELECT user_id FROM usersync.drifted
WHERE run_id = $1 AND kind = $2 AND user_id > $3
ORDER BY user_id
LIMIT $4;
