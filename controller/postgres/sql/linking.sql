-- note_links(schema_name, user_ids, table_name, child_schema, child_table, constraint_name, removed_at, retention)
-- A row that goes in the same DELETE is archived as it is, so it is not noted.
INSERT INTO usersync.links (
    schema_name, user_id, table_name, child_schema, child_table, constraint_name, primary_key, held, removed_at,
    expires_at
)
SELECT
    $1, usersync_parent.{user_id}::text, $3, $4, $5, $6, jsonb_object(ARRAY[{key_names}], ARRAY[{key_texts}]),
    jsonb_object(ARRAY[{names}], ARRAY[{texts}]), $7, $7::timestamptz + $8::interval
FROM {parent} AS usersync_parent JOIN {child} AS usersync_child ON {matching}
WHERE usersync_parent.{user_id} = ANY($2::text[]) AND ({child_owner} = ANY($2::text[])) IS NOT TRUE;

-- note_links_by_place(schema_name, user_ids, table_name, child_schema, child_table, constraint_name, removed_at, retention, run_id)
INSERT INTO usersync.links (
    schema_name, user_id, table_name, child_schema, child_table, constraint_name, primary_key, held, removed_at,
    expires_at
)
SELECT
    $1, usersync_parent.{user_id}::text, $3, $4, $5, $6, jsonb_object(ARRAY[{key_names}], ARRAY[{key_texts}]),
    jsonb_object(ARRAY[{names}], ARRAY[{texts}]), $7, $7::timestamptz + $8::interval
FROM {parent} AS usersync_parent JOIN {child} AS usersync_child ON {matching}
WHERE usersync_parent.ctid = ANY(ARRAY(
        SELECT place FROM usersync.places WHERE run_id = $9 AND table_name = $3 AND user_id = ANY($2::text[])
    ))
    AND usersync_parent.{user_id} = ANY($2::text[])
    AND NOT EXISTS (
        SELECT FROM usersync.places AS p
        WHERE p.run_id = $9 AND p.table_name = $3 AND p.user_id = ANY($2::text[])
            AND p.user_id = {child_owner} COLLATE "C" AND p.place = usersync_child.ctid
    );

-- lock_batch(user_id, limit, after)
-- A statement of its own, as lock_parents: the look at the rows that refer comes after it. A place names one row in
-- each partition, so one partition at a time.
WITH locked AS (
    SELECT usersync_row.tableoid AS part, usersync_row.ctid AS place
    FROM {schema}.{table} AS usersync_row
    WHERE usersync_row.{user_id} = $1::text AND ($3::text IS NULL OR usersync_row.ctid > $3::text::tid)
    LIMIT $2
    FOR UPDATE
)
SELECT
    (SELECT count(*) FROM locked) AS picked,
    min(part) AS part,
    array_agg(place::text) AS places,
    (SELECT place::text FROM locked ORDER BY place DESC LIMIT 1) AS last
FROM locked WHERE part = (SELECT part FROM locked LIMIT 1);

-- note_links_of_batch(schema_name, user_ids, table_name, child_schema, child_table, constraint_name, removed_at, retention, part, places)
INSERT INTO usersync.links (
    schema_name, user_id, table_name, child_schema, child_table, constraint_name, primary_key, held, removed_at,
    expires_at
)
SELECT
    $1, usersync_parent.{user_id}::text, $3, $4, $5, $6, jsonb_object(ARRAY[{key_names}], ARRAY[{key_texts}]),
    jsonb_object(ARRAY[{names}], ARRAY[{texts}]), $7, $7::timestamptz + $8::interval
FROM {parent} AS usersync_parent JOIN {child} AS usersync_child ON {matching}
WHERE usersync_parent.ctid = ANY($10::text[]::tid[]) AND usersync_parent.tableoid = $9
    AND usersync_parent.{user_id} = ANY($2::text[]);

-- archive_places(schema_name, table_name, user_id, reason, run_id, layout_id, removed_at, retention, part, places)
WITH removed AS (
    DELETE FROM {schema}.{table} AS usersync_row
    WHERE usersync_row.ctid = ANY($10::text[]::tid[]) AND usersync_row.tableoid = $9
        AND usersync_row.{user_id} = $3::text
    RETURNING jsonb_object(ARRAY[{names}], ARRAY[{texts}]) AS content
),
archived AS (
    INSERT INTO usersync.archive
        (schema_name, table_name, user_id, content, reason, run_id, layout_id, removed_at, expires_at)
    SELECT $1, $2, $3, content, $4, $5, $6, $7, $7::timestamptz + $8::interval FROM removed
)
SELECT count(*) FROM removed;

-- note_emptied(schema_name, child_schema, child_table, constraint_name, pattern)
-- What the DELETE made of the rows noted before it: of those that this transaction has changed. A row that somebody
-- pointed elsewhere after the look is not one of them.
UPDATE usersync.links AS l
SET became = e.became,
    named = ARRAY(
        SELECT DISTINCT m.ids[1] FROM regexp_matches(concat(l.primary_key, l.held, e.became), $5, 'g') AS m (ids)
    )
FROM (
    SELECT usersync_link.id, jsonb_object(ARRAY[{names}], ARRAY[{texts}]) AS became
    FROM usersync.links AS usersync_link JOIN {child} AS usersync_child ON {locating}
    WHERE usersync_link.schema_name = $1 AND usersync_link.became IS NULL AND usersync_link.child_schema = $2
        AND usersync_link.child_table = $3 AND usersync_link.constraint_name = $4
        AND usersync_child.xmin = pg_current_xact_id()::xid
) AS e
WHERE l.id = e.id;

-- forget_untouched(schema_name)
DELETE FROM usersync.links WHERE schema_name = $1 AND became IS NULL;

-- erase_links(schema_name, user_ids)
-- Those to rows of the users, and those of rows of others that name them.
DELETE FROM usersync.links
WHERE schema_name = $1 AND (user_id = ANY($2::text[]) OR named && $2::text[] COLLATE "C");

-- erase_links_batch(schema_name, user_id, limit)
DELETE FROM usersync.links WHERE id = ANY(ARRAY(
    SELECT id FROM usersync.links
    WHERE schema_name = $1 AND (user_id = $2 OR named && ARRAY[$2::text] COLLATE "C") LIMIT $3
));

-- links_of(schema_name, user_id)
SELECT
    table_name, child_schema, child_table, constraint_name,
    ARRAY(SELECT jsonb_object_keys(held) ORDER BY 1) AS columns,
    ARRAY(SELECT jsonb_object_keys(primary_key) ORDER BY 1) AS primary_key,
    count(*) AS links, min(id) AS first_id, max(id) AS last_id
FROM usersync.links
WHERE schema_name = $1 AND user_id = $2 AND restored_at IS NULL AND expires_at > (SELECT usersync.clock())
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY min(id);

-- may_set(child, columns)
SELECT bool_and(has_column_privilege($1::text, c.name, 'UPDATE')) FROM unnest($2::text[]) AS c (name);

-- set_links(schema_name, user_id, table_name, child_schema, child_table, constraint_name, first_id, last_id)
-- A column is set if it is what the deletion made it, or again what it was. What lost a later link by the same key
-- had been pointed elsewhere meanwhile.
WITH linked AS (
    UPDATE {child} AS usersync_child SET {assignments}
    FROM usersync.links AS usersync_link
    WHERE usersync_link.schema_name = $1 AND usersync_link.user_id = $2 AND usersync_link.table_name = $3
        AND usersync_link.child_schema = $4 AND usersync_link.child_table = $5
        AND usersync_link.constraint_name = $6 AND usersync_link.id BETWEEN $7 AND $8
        AND usersync_link.restored_at IS NULL AND usersync_link.expires_at > (SELECT usersync.clock())
        AND {locating} AND {unchanged}
        AND NOT EXISTS (
            SELECT FROM usersync.links AS later
            WHERE later.schema_name = $1 AND later.child_schema = $4 AND later.child_table = $5
                AND later.constraint_name = $6 AND later.primary_key = usersync_link.primary_key
                AND later.id > usersync_link.id
        )
        AND EXISTS (
            SELECT FROM (SELECT {held}) AS usersync_child JOIN {parent} AS usersync_parent ON {matching}
        )
    RETURNING usersync_link.id
),
marked AS (
    UPDATE usersync.links SET restored_at = usersync.clock() WHERE id IN (SELECT id FROM linked)
)
SELECT count(*) FROM linked;
