-- lock_users(schema_name, user_ids)
-- A statement of its own, in the order of the ids: what follows sees what the holder before us committed, and
-- two who lock several users cannot wait for each other.
SELECT pg_advisory_xact_lock(hashtextextended($1::text || '/' || u.id, 1970694498))
FROM unnest($2::text[]) AS u (id);

-- lock_free_users(schema_name, user_ids)
-- As lock_users, without waiting: the users whose locks were to be had.
SELECT u.id AS user_id FROM unnest($2::text[]) AS u (id)
WHERE pg_try_advisory_xact_lock(hashtextextended($1::text || '/' || u.id, 1970694498));

-- lock_table()
LOCK TABLE {schema}.{table} IN SHARE ROW EXCLUSIVE MODE;

-- only_missing(run_id, user_ids)
SELECT user_id FROM usersync.drifted WHERE run_id = $1 AND kind = 'missing' AND user_id = ANY($2::text[]);

-- buried(schema_name, user_ids)
-- One hash for each user, and one look into the index: joined freely, a hash may be made for each pair.
WITH hashed AS MATERIALIZED (
    SELECT u.id, sha256(t.salt || convert_to(t.instance_id || u.id, 'UTF8')) AS user_hash
    FROM unnest($2::text[]) AS u (id)
    JOIN usersync.target AS t ON t.schema_name = $1
)
SELECT h.id AS user_id
FROM hashed AS h
CROSS JOIN LATERAL (
    SELECT FROM usersync.buried AS s WHERE s.schema_name = $1 AND s.user_hash = h.user_hash LIMIT 1
) AS found;

-- insert_profiles_by_index(user_ids)
INSERT INTO {schema}.{table} ({columns})
SELECT {values} FROM unnest($1::text[]) AS u (id)
ON CONFLICT ({user_id}) DO NOTHING
RETURNING {user_id}::text AS user_id;

-- insert_profiles_under_lock(user_ids)
INSERT INTO {schema}.{table} ({columns})
SELECT {values} FROM unnest($1::text[]) AS u (id)
WHERE NOT EXISTS (SELECT FROM {schema}.{table} AS usersync_row WHERE usersync_row.{user_id} = u.id)
RETURNING {user_id}::text AS user_id;

-- bury(schema_name, user_ids, reason)
-- Under the users' locks: nobody else buries or lifts meanwhile.
INSERT INTO usersync.tombstones (schema_name, user_hash, reason)
SELECT $1, h.user_hash, $3
FROM (
    SELECT sha256(t.salt || convert_to(t.instance_id || u.id, 'UTF8')) AS user_hash
    FROM unnest($2::text[]) AS u (id)
    JOIN usersync.target AS t ON t.schema_name = $1
) AS h
WHERE NOT EXISTS (SELECT FROM usersync.buried AS b WHERE b.schema_name = $1 AND b.user_hash = h.user_hash);

-- archive_rows(schema_name, table_name, user_ids, reason, run_id, layout_id, removed_at, retention)
WITH removed AS (
    DELETE FROM {schema}.{table} AS usersync_row
    WHERE usersync_row.{user_id} = ANY($3::text[])
    RETURNING usersync_row.{user_id}::text AS user_id, jsonb_object(ARRAY[{names}], ARRAY[{texts}]) AS content
),
archived AS (
    INSERT INTO usersync.archive
        (schema_name, table_name, user_id, content, reason, run_id, layout_id, removed_at, expires_at)
    SELECT $1, $2, user_id, content, $4, $5, $6, $7, $7::timestamptz + $8::interval FROM removed
)
SELECT user_id, count(*) AS rows FROM removed GROUP BY user_id;

-- erase_rows(user_ids)
WITH removed AS (
    DELETE FROM {schema}.{table} AS usersync_row
    WHERE usersync_row.{user_id} = ANY($1::text[])
    RETURNING usersync_row.{user_id}::text AS user_id
)
SELECT user_id, count(*) AS rows FROM removed GROUP BY user_id;

-- erase_archived(schema_name, user_ids)
DELETE FROM usersync.archive WHERE schema_name = $1 AND user_id = ANY($2::text[]);

-- erased_on_request(schema_name, user_ids)
SELECT u.id AS user_id
FROM unnest($2::text[]) AS u (id)
JOIN usersync.target AS t ON t.schema_name = $1
WHERE EXISTS (
    SELECT FROM usersync.receipts AS r
    JOIN usersync.buried AS b ON b.schema_name = r.schema_name AND b.user_hash = r.user_hash
    WHERE r.schema_name = $1 AND r.user_hash = sha256(t.salt || convert_to(t.instance_id || u.id, 'UTF8'))
        AND r.act = 'erased' AND r.reason = 'requested'
);

-- rows_remain(user_ids)
SELECT EXISTS (SELECT FROM {schema}.{table} AS usersync_row WHERE usersync_row.{user_id} = ANY($1::text[]));

-- owners_among(user_ids)
SELECT DISTINCT usersync_row.{user_id}::text AS user_id FROM {schema}.{table} AS usersync_row
WHERE usersync_row.{user_id} = ANY($1::text[]);

-- collect_places(run_id, table_name)
INSERT INTO usersync.places (run_id, table_name, user_id, place)
SELECT $1, $2, d.user_id, usersync_row.ctid
FROM {schema}.{table} AS usersync_row
JOIN usersync.drifted AS d
    ON d.run_id = $1 AND d.kind = 'orphaned' AND d.user_id = usersync_row.{user_id}::text COLLATE "C";

-- only_orphaned(run_id, user_ids)
SELECT user_id FROM usersync.drifted WHERE run_id = $1 AND kind = 'orphaned' AND user_id = ANY($2::text[]);

-- lock_parents(user_ids)
-- A statement of its own, before the look at the rows that refer: who inserts one holds its parent FOR KEY SHARE,
-- so what is under way is waited for and seen, and what comes later waits for us and finds no parent.
SELECT count(*) FROM (
    SELECT 1 FROM {schema}.{table} AS usersync_row WHERE usersync_row.{user_id} = ANY($1::text[]) FOR UPDATE
) AS locked;

-- lock_parents_by_place(run_id, table_name, user_ids)
SELECT count(*) FROM (
    SELECT 1 FROM {schema}.{table} AS usersync_row
    WHERE usersync_row.ctid = ANY(ARRAY(
            SELECT place FROM usersync.places WHERE run_id = $1 AND table_name = $2 AND user_id = ANY($3::text[])
        ))
        AND usersync_row.{user_id} = ANY($3::text[])
    FOR UPDATE
) AS locked;

-- cascade_reaches(user_ids)
-- Of the rows that a cascade would take along: false if there is one of somebody else, true if all are of these
-- users, nothing if there is none.
SELECT coalesce(usersync_child.{child_user_id} = ANY($1::text[]), false) AS own
FROM {parent} AS usersync_parent JOIN {child} AS usersync_child ON {matching}
WHERE usersync_parent.{user_id} = ANY($1::text[])
ORDER BY own LIMIT 1;

-- cascade_reaches_by_place(run_id, table_name, user_ids)
SELECT coalesce(usersync_child.{child_user_id} = ANY($3::text[]), false) AS own
FROM {parent} AS usersync_parent JOIN {child} AS usersync_child ON {matching}
WHERE usersync_parent.ctid = ANY(ARRAY(
        SELECT place FROM usersync.places WHERE run_id = $1 AND table_name = $2 AND user_id = ANY($3::text[])
    ))
    AND usersync_parent.{user_id} = ANY($3::text[])
ORDER BY own LIMIT 1;

-- count_places(run_id, table_name, user_ids)
SELECT count(*) FROM usersync.places WHERE run_id = $1 AND table_name = $2 AND user_id = ANY($3::text[]);

-- archive_rows_by_place(schema_name, table_name, user_ids, reason, run_id, layout_id, removed_at, retention)
-- A place may hold another row by now, and names one row in each partition, hence the user id beside it.
WITH removed AS (
    DELETE FROM {schema}.{table} AS usersync_row
    WHERE usersync_row.ctid = ANY(ARRAY(
            SELECT place FROM usersync.places WHERE run_id = $5 AND table_name = $2 AND user_id = ANY($3::text[])
        ))
        AND usersync_row.{user_id} = ANY($3::text[])
    RETURNING usersync_row.{user_id}::text AS user_id, jsonb_object(ARRAY[{names}], ARRAY[{texts}]) AS content
),
archived AS (
    INSERT INTO usersync.archive
        (schema_name, table_name, user_id, content, reason, run_id, layout_id, removed_at, expires_at)
    SELECT $1, $2, user_id, content, $4, $5, $6, $7, $7::timestamptz + $8::interval FROM removed
)
SELECT user_id, count(*) AS rows FROM removed GROUP BY user_id;

-- erase_rows_by_place(user_ids, table_name, run_id)
WITH removed AS (
    DELETE FROM {schema}.{table} AS usersync_row
    WHERE usersync_row.ctid = ANY(ARRAY(
            SELECT place FROM usersync.places WHERE run_id = $3 AND table_name = $2 AND user_id = ANY($1::text[])
        ))
        AND usersync_row.{user_id} = ANY($1::text[])
    RETURNING usersync_row.{user_id}::text AS user_id
)
SELECT user_id, count(*) AS rows FROM removed GROUP BY user_id;

-- lock_rows(user_ids)
-- A statement of its own: the ranking that follows sees every row as it will stay.
SELECT locked.user_id, count(*) - 1 AS surplus FROM (
    SELECT usersync_row.{user_id}::text AS user_id FROM {schema}.{table} AS usersync_row
    WHERE usersync_row.{user_id} = ANY($1::text[])
    FOR UPDATE
) AS locked
GROUP BY locked.user_id;

-- surplus_referred_to(user_ids)
-- The users with a surplus row to which another row refers. A row that refers to itself goes as a whole.
SELECT DISTINCT ranked.user_id FROM (
    SELECT
        usersync_row.tableoid AS part,
        usersync_row.ctid AS place,
        usersync_row.{user_id}::text AS user_id,
        row_number() OVER (PARTITION BY usersync_row.{user_id} ORDER BY {ranking}) AS number
    FROM {schema}.{table} AS usersync_row
    WHERE usersync_row.{user_id} = ANY($1::text[])
) AS ranked
JOIN {parent} AS usersync_parent ON usersync_parent.tableoid = ranked.part AND usersync_parent.ctid = ranked.place
JOIN {child} AS usersync_child ON {matching}
WHERE ranked.number > 1 AND (usersync_child.tableoid, usersync_child.ctid) <> (ranked.part, ranked.place);

-- reduce_duplicates(schema_name, table_name, user_ids, reason, run_id, layout_id, removed_at, retention)
WITH ranked AS (
    SELECT
        usersync_row.tableoid AS part,
        usersync_row.ctid AS place,
        row_number() OVER (PARTITION BY usersync_row.{user_id} ORDER BY {ranking}) AS number
    FROM {schema}.{table} AS usersync_row
    WHERE usersync_row.{user_id} = ANY($3::text[])
),
removed AS (
    DELETE FROM {schema}.{table} AS usersync_row
    USING ranked
    WHERE ranked.number > 1 AND usersync_row.ctid = ranked.place AND usersync_row.tableoid = ranked.part
    RETURNING usersync_row.{user_id}::text AS user_id, jsonb_object(ARRAY[{names}], ARRAY[{texts}]) AS content
)
INSERT INTO usersync.archive
    (schema_name, table_name, user_id, content, reason, run_id, layout_id, removed_at, expires_at)
SELECT $1, $2, user_id, content, $4, $5, $6, $7, $7::timestamptz + $8::interval FROM removed;

-- add_layout(schema_name, table_name, columns)
INSERT INTO usersync.layouts (schema_name, table_name, columns, hash)
SELECT $1, $2, $3::jsonb, sha256(convert_to($3::jsonb::text, 'UTF8'))
ON CONFLICT DO NOTHING;

-- find_layout(schema_name, table_name, columns)
-- A statement of its own: it sees what somebody else added a moment ago.
SELECT id FROM usersync.layouts
WHERE schema_name = $1 AND table_name = $2 AND hash = sha256(convert_to($3::jsonb::text, 'UTF8'));

-- time()
SELECT usersync.clock();
