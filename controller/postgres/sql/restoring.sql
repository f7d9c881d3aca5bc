-- portions(schema_name, user_id, duplicates)
-- Rows of one removal from one table, with the columns that it had then: what is put back together. Past their
-- retention some of them may be gone by now, so none of them is.
SELECT
    a.table_name, a.layout_id, a.reason = 'duplicate' AS duplicate, a.removed_at, count(*) AS rows,
    min(a.id) AS first_id, max(a.id) AS last_id,
    coalesce((SELECT l.columns::text FROM usersync.layouts AS l WHERE l.id = a.layout_id), '[]') AS columns
FROM usersync.archive AS a
WHERE a.schema_name = $1 AND a.user_id = $2 AND a.restored_at IS NULL AND (a.reason <> 'duplicate' OR $3)
GROUP BY 1, 2, 3, 4
HAVING min(a.expires_at) > (SELECT usersync.clock())
ORDER BY 3, 4, 6;

-- left_in_archive(schema_name, user_id)
-- What stays there without a request for it, for whoever finds nothing to be put back.
SELECT
    count(*) FILTER (WHERE restored_at IS NOT NULL) AS restored,
    count(*) FILTER (WHERE restored_at IS NULL AND expires_at <= usersync.clock()) AS expired,
    count(*) FILTER (WHERE restored_at IS NULL AND expires_at > usersync.clock() AND reason = 'duplicate') AS duplicates
FROM usersync.archive WHERE schema_name = $1 AND user_id = $2;

-- columns_now(oid)
WITH RECURSIVE based (type, base) AS (
    SELECT DISTINCT atttypid, atttypid FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT b.type, t.typbasetype FROM based AS b JOIN pg_type AS t ON t.oid = b.base WHERE t.typbasetype <> 0
)
SELECT
    a.attname::text AS name,
    format_type(a.atttypid, a.atttypmod) AS type,
    a.attgenerated <> '' AS generated,
    (a.attnotnull OR t.typnotnull)
        AND NOT (a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL) AS required,
    EXISTS (
        SELECT FROM based AS b WHERE b.type = a.atttypid AND b.base IN ('json'::regtype, 'jsonb'::regtype)
    ) AS holds_json,
    t.typcategory IN ('D', 'T') AS holds_time
FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum;

-- legacy_columns(schema_name, user_id, table_name, layout_id, duplicate, removed_at, first_id, last_id)
-- Rows archived before layouts were kept name their columns themselves.
SELECT DISTINCT k.name FROM usersync.archive AS a CROSS JOIN LATERAL jsonb_object_keys(a.content) AS k (name)
WHERE a.schema_name = $1 AND a.user_id = $2 AND a.table_name = $3 AND a.layout_id IS NOT DISTINCT FROM $4
    AND (a.reason = 'duplicate') = $5 AND a.removed_at = $6 AND a.id BETWEEN $7 AND $8 AND a.restored_at IS NULL;

-- values_left(schema_name, user_id, table_name, layout_id, duplicate, removed_at, first_id, last_id, columns)
SELECT c.name FROM unnest($9::text[]) WITH ORDINALITY AS c (name, place)
WHERE EXISTS (
    SELECT FROM usersync.archive AS a
    WHERE a.schema_name = $1 AND a.user_id = $2 AND a.table_name = $3 AND a.layout_id IS NOT DISTINCT FROM $4
        AND (a.reason = 'duplicate') = $5 AND a.removed_at = $6 AND a.id BETWEEN $7 AND $8 AND a.restored_at IS NULL
        AND a.content ->> c.name IS NOT NULL AND a.content ->> c.name <> $2
)
ORDER BY c.place;

-- type_known(type)
SELECT to_regtype($1) IS NOT NULL;

-- read_otherwise(schema_name, user_id, table_name, layout_id, duplicate, removed_at, first_id, last_id, column)
-- Whether some value of the column is another one as the column reads it now.
SELECT EXISTS (
    SELECT FROM usersync.archive AS a
    CROSS JOIN LATERAL (SELECT a.content -> $9::text AS json, a.content ->> $9::text AS text) AS usersync_old
    CROSS JOIN LATERAL jsonb_to_record(a.content) AS usersync_row ({definitions})
    CROSS JOIN LATERAL (SELECT {values} AS value) AS usersync_new
    WHERE a.schema_name = $1 AND a.user_id = $2 AND a.table_name = $3 AND a.layout_id IS NOT DISTINCT FROM $4
        AND (a.reason = 'duplicate') = $5 AND a.removed_at = $6 AND a.id BETWEEN $7 AND $8 AND a.restored_at IS NULL
        AND usersync_old.text IS NOT NULL
        AND (usersync_new.value::text = usersync_old.text OR {alike}) IS NOT TRUE
);

-- read_values(schema_name, user_id, table_name, layout_id, duplicate, removed_at, first_id, last_id)
-- Reads every value of a column; an error where its type refuses one.
SELECT count({values})
FROM usersync.archive AS a CROSS JOIN LATERAL jsonb_to_record(a.content) AS usersync_row ({definitions})
WHERE a.schema_name = $1 AND a.user_id = $2 AND a.table_name = $3 AND a.layout_id IS NOT DISTINCT FROM $4
    AND (a.reason = 'duplicate') = $5 AND a.removed_at = $6 AND a.id BETWEEN $7 AND $8 AND a.restored_at IS NULL;

-- count_portion(schema_name, user_id, table_name, layout_id, duplicate, removed_at, first_id, last_id)
SELECT count(*) FROM usersync.archive AS a
WHERE a.schema_name = $1 AND a.user_id = $2 AND a.table_name = $3 AND a.layout_id IS NOT DISTINCT FROM $4
    AND (a.reason = 'duplicate') = $5 AND a.removed_at = $6 AND a.id BETWEEN $7 AND $8 AND a.restored_at IS NULL;

-- put_back(schema_name, user_id, table_name, layout_id, duplicate, removed_at, first_id, last_id)
-- jsonb_to_record hands each text to the input function of its type, length and precision included: too long a
-- text is an error there, where a cast would cut it.
INSERT INTO {schema}.{table} ({columns}) OVERRIDING SYSTEM VALUE
SELECT {values}
FROM usersync.archive AS a CROSS JOIN LATERAL jsonb_to_record(a.content) AS usersync_row ({definitions})
WHERE a.schema_name = $1 AND a.user_id = $2 AND a.table_name = $3 AND a.layout_id IS NOT DISTINCT FROM $4
    AND (a.reason = 'duplicate') = $5 AND a.removed_at = $6 AND a.id BETWEEN $7 AND $8 AND a.restored_at IS NULL
ORDER BY a.id;

-- mark_restored(schema_name, user_id, table_name, layout_id, duplicate, removed_at, first_id, last_id)
UPDATE usersync.archive AS a SET restored_at = usersync.clock()
WHERE a.schema_name = $1 AND a.user_id = $2 AND a.table_name = $3 AND a.layout_id IS NOT DISTINCT FROM $4
    AND (a.reason = 'duplicate') = $5 AND a.removed_at = $6 AND a.id BETWEEN $7 AND $8 AND a.restored_at IS NULL;

-- deferrable_references(oids)
-- Where tables refer to each other in a circle, no order puts parents first.
SELECT DISTINCT n.nspname::text AS schema_name, k.conname::text AS name
FROM pg_constraint AS k JOIN pg_namespace AS n ON n.oid = k.connamespace
WHERE k.contype = 'f' AND k.condeferrable AND k.conparentid = 0 AND k.conrelid = ANY($1::oid[]);

-- lift_tombstones(schema_name, user_id, lifted_by)
INSERT INTO usersync.lifted_tombstones (tombstone_id, lifted_by)
SELECT b.tombstone_id, $3
FROM usersync.buried AS b JOIN usersync.target AS t ON t.schema_name = b.schema_name
WHERE b.schema_name = $1 AND b.user_hash = sha256(t.salt || convert_to(t.instance_id || $2::text, 'UTF8'));

-- end_claims(schema_name, user_id, lives)
-- Those that would take his rows away again.
DELETE FROM usersync.claims
WHERE schema_name = $1 AND user_id = $2
    AND (kind = 'second_sweep' OR kind IN ('deletion', 'holdback') AND NOT $3::boolean);

-- renew_claims(schema_name, user_id)
-- A deletion of whom Clerk knows may have been announced since Clerk was asked: it stays, under another number, so that
-- who has taken it, and an answer of before, finds that it stands no more.
UPDATE usersync.claims SET id = DEFAULT, attempts = 0, present_answers = 0
WHERE schema_name = $1 AND user_id = $2 AND kind IN ('deletion', 'holdback');

-- forget_suspect(schema_name, user_id)
-- Should he be missing, his absence begins anew.
DELETE FROM usersync.suspects WHERE schema_name = $1 AND user_id = $2;

-- forget_held_user(schema_name, user_id)
-- A set that was held back before permits his removal no more.
DELETE FROM usersync.held_users WHERE schema_name = $1 AND user_id = $2;

-- count_archived(schema_name, user_id)
SELECT count(*) FROM usersync.archive WHERE schema_name = $1 AND user_id = $2;

-- forget_claims(schema_name, user_id)
DELETE FROM usersync.claims WHERE schema_name = $1 AND user_id = $2;

-- forget_listed_user(schema_name, user_id)
-- Leftovers of runs that were killed: none is under way on this schema.
DELETE FROM usersync.listed WHERE user_id = $2 AND run_id IN (SELECT id FROM usersync.runs WHERE schema_name = $1);

-- forget_drifted_user(schema_name, user_id)
DELETE FROM usersync.drifted WHERE user_id = $2 AND run_id IN (SELECT id FROM usersync.runs WHERE schema_name = $1);

-- forget_places_user(schema_name, user_id)
DELETE FROM usersync.places WHERE user_id = $2 AND run_id IN (SELECT id FROM usersync.runs WHERE schema_name = $1);
