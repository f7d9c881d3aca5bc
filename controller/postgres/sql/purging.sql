-- count_rows(user_ids, limit)
SELECT u.id AS user_id, (
    SELECT count(*) FROM (
        SELECT FROM {schema}.{table} AS usersync_row WHERE usersync_row.{user_id} = u.id LIMIT $2
    ) AS few
) AS rows
FROM unnest($1::text[]) AS u (id);

-- count_places(run_id, table_name, user_ids)
SELECT user_id, count(*) AS rows FROM usersync.places
WHERE run_id = $1 AND table_name = $2 AND user_id = ANY($3::text[])
GROUP BY user_id;

-- count_rows_by_scan(user_ids)
SELECT usersync_row.{user_id}::text AS user_id, count(*) AS rows FROM {schema}.{table} AS usersync_row
WHERE usersync_row.{user_id} = ANY($1::text[])
GROUP BY usersync_row.{user_id};

-- unfinished_among(schema_name, user_ids)
SELECT user_id FROM usersync.unfinished WHERE schema_name = $1 AND user_id = ANY($2::text[]);

-- unfinished_page(schema_name, after, size)
SELECT user_id FROM usersync.unfinished WHERE schema_name = $1 AND user_id > $2 ORDER BY user_id LIMIT $3;

-- find_unfinished(schema_name, user_id)
SELECT act, reason, approval, begun_at, rows::text AS rows, under_way, searched_to
FROM usersync.unfinished WHERE schema_name = $1 AND user_id = $2;

-- add_unfinished(schema_name, user_id, act, reason, approval, begun_at, rows)
INSERT INTO usersync.unfinished (schema_name, user_id, act, reason, approval, begun_at, rows)
VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb);

-- note_progress(schema_name, user_id, act, reason, rows, under_way, searched_to)
UPDATE usersync.unfinished SET act = $3, reason = $4, rows = $5::jsonb, under_way = $6, searched_to = $7
WHERE schema_name = $1 AND user_id = $2;

-- end_unfinished(schema_name, user_id)
DELETE FROM usersync.unfinished WHERE schema_name = $1 AND user_id = $2;

-- add_claim(schema_name, user_id, delay)
-- Should the run that has begun end in the middle, the webhook service goes on from here.
INSERT INTO usersync.claims (schema_name, user_id, kind, due_at)
VALUES ($1, $2, 'deletion', usersync.clock() + $3::interval)
ON CONFLICT DO NOTHING;

-- has_delete_triggers(oid)
-- Those of the application; what they would take along nobody archives.
SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $1::oid AND NOT tgisinternal AND tgtype::int & 8 <> 0);

-- search_in_order()
-- A scan that begins in the middle of a table would make the place of the last row found mean nothing.
SET LOCAL synchronize_seqscans = off;

-- archive_batch(schema_name, table_name, user_id, limit, after, reason, run_id, layout_id, removed_at, retention)
-- `after`: NULL, or the place behind which to look. A place names one row in each partition, so one partition at a
-- time. A row may become another user's while we wait for it, hence the user id beside the place.
WITH picked AS MATERIALIZED (
    SELECT usersync_row.tableoid AS part, usersync_row.ctid AS place
    FROM {schema}.{table} AS usersync_row
    WHERE usersync_row.{user_id} = $3::text AND ($5::text IS NULL OR usersync_row.ctid > $5::text::tid)
    LIMIT $4
),
removed AS (
    DELETE FROM {schema}.{table} AS usersync_row
    WHERE usersync_row.ctid = ANY(ARRAY(SELECT place FROM picked WHERE part = (SELECT part FROM picked LIMIT 1)))
        AND usersync_row.tableoid = (SELECT part FROM picked LIMIT 1)
        AND usersync_row.{user_id} = $3::text
    RETURNING jsonb_object(ARRAY[{names}], ARRAY[{texts}]) AS content
),
archived AS (
    INSERT INTO usersync.archive
        (schema_name, table_name, user_id, content, reason, run_id, layout_id, removed_at, expires_at)
    SELECT $1, $2, $3, content, $6, $7, $8, $9, $9::timestamptz + $10::interval FROM removed
)
SELECT
    (SELECT count(*) FROM picked) AS picked,
    (SELECT count(*) FROM removed) AS removed,
    (SELECT place::text FROM picked ORDER BY place DESC LIMIT 1) AS last;

-- erase_batch(user_id, limit, after)
WITH picked AS MATERIALIZED (
    SELECT usersync_row.tableoid AS part, usersync_row.ctid AS place
    FROM {schema}.{table} AS usersync_row
    WHERE usersync_row.{user_id} = $1::text AND ($3::text IS NULL OR usersync_row.ctid > $3::text::tid)
    LIMIT $2
),
removed AS (
    DELETE FROM {schema}.{table} AS usersync_row
    WHERE usersync_row.ctid = ANY(ARRAY(SELECT place FROM picked WHERE part = (SELECT part FROM picked LIMIT 1)))
        AND usersync_row.tableoid = (SELECT part FROM picked LIMIT 1)
        AND usersync_row.{user_id} = $1::text
    RETURNING 1
)
SELECT
    (SELECT count(*) FROM picked) AS picked,
    (SELECT count(*) FROM removed) AS removed,
    (SELECT place::text FROM picked ORDER BY place DESC LIMIT 1) AS last;

-- erase_archived_batch(schema_name, user_id, limit)
DELETE FROM usersync.archive WHERE id = ANY(ARRAY(
    SELECT id FROM usersync.archive WHERE schema_name = $1 AND user_id = $2 LIMIT $3
));
