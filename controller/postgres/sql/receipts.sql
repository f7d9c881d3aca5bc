-- issue_receipts(schema_name, user_ids, rows, counted, act, reason, requested_by, approval, run_id)
INSERT INTO usersync.receipts
    (schema_name, instance_id, user_hash, rows, counted, act, reason, requested_by, approval, run_id)
SELECT
    $1, t.instance_id, sha256(t.salt || convert_to(t.instance_id || u.id, 'UTF8')), u.rows::jsonb, u.counted::boolean,
    $5, $6, $7, $8, $9
FROM unnest($2::text[], $3::text[], $4::text[]) AS u (id, rows, counted)
JOIN usersync.target AS t ON t.schema_name = $1;

-- lock_limits(schema_name)
-- A statement of its own: whoever removes next counts what the one before has committed.
SELECT 1 FROM usersync.target WHERE schema_name = $1 FOR NO KEY UPDATE;

-- removed_in_window(schema_name, window)
SELECT count(DISTINCT user_hash) FROM usersync.receipts
WHERE schema_name = $1 AND counted AND issued_at > (SELECT usersync.clock()) - $2::interval;

-- limits_base(schema_name, window)
-- The users who had rows when they were last counted, and those who were removed within the window before that.
SELECT
    t.users_with_rows AS users,
    t.users_counted_at IS NULL OR t.users_counted_at < (SELECT usersync.clock()) - interval '1 day' AS stale,
    (
        SELECT count(DISTINCT r.user_hash) FROM usersync.receipts AS r
        WHERE r.schema_name = $1 AND r.counted AND r.issued_at > (SELECT usersync.clock()) - $2::interval
            AND r.issued_at < t.users_counted_at
    ) AS removed_before
FROM usersync.target AS t WHERE t.schema_name = $1;

-- count_users(pattern)
SELECT count(DISTINCT usersync_row.{user_id}) FROM {schema}.{table} AS usersync_row
WHERE usersync_row.{user_id}::text ~ $1 AND octet_length(usersync_row.{user_id}::text) <= 255;

-- note_users(schema_name, users)
UPDATE usersync.target SET users_with_rows = $2, users_counted_at = usersync.clock() WHERE schema_name = $1;

-- lock_chain(schema_name)
SELECT pg_advisory_xact_lock(hashtextextended('usersync.receipt_chain/' || $1::text, 0));

-- chain_head(schema_name)
SELECT position, hash FROM usersync.receipt_chain WHERE schema_name = $1 ORDER BY position DESC LIMIT 1;

-- newest_linked()
SELECT coalesce(max(receipt_id), 0) FROM usersync.receipt_chain;

-- unchained(schema_name, limit, behind)
SELECT r.id, {content} AS content
FROM usersync.receipts AS r
WHERE r.schema_name = $1 AND r.id > $3 AND NOT EXISTS (
    SELECT FROM usersync.receipt_chain AS c WHERE c.receipt_id = r.id AND c.receipt_id > $3
)
ORDER BY r.id
LIMIT $2;

-- receipt_content()
-- One receipt as a text that no setting changes: what its link is the hash of.
jsonb_build_array(
    r.id, r.schema_name, r.instance_id, encode(r.user_hash, 'hex'), r.act, r.reason, r.requested_by, r.counted,
    r.approval, r.run_id, r.rows, trunc(extract(epoch FROM r.issued_at) * 1000000)::bigint
)::text

-- add_links(schema_name, positions, receipt_ids, hashes)
INSERT INTO usersync.receipt_chain (schema_name, position, receipt_id, hash)
-- Numbers as texts, as for all arrays but those of texts asyncpg would ask for the type, and set `jit` for the session.
SELECT $1, u.position::bigint, u.receipt_id::bigint, decode(u.hash, 'hex')
FROM unnest($2::text[], $3::text[], $4::text[]) AS u (position, receipt_id, hash);

-- count_receipts(schema_name)
SELECT count(*) FROM usersync.receipts WHERE schema_name = $1;

-- claims_held(schema_name)
SELECT count(*) FROM usersync.claims WHERE schema_name = $1 AND held_back_at IS NOT NULL;

-- newest_receipts(schema_name, limit, user_id)
SELECT
    c.position, r.act, r.reason, r.requested_by, r.issued_at, r.counted, r.approval, r.run_id, r.rows::text AS rows,
    encode(r.user_hash, 'hex') AS user_hash, encode(c.hash, 'hex') AS link
FROM usersync.receipts AS r LEFT JOIN usersync.receipt_chain AS c ON c.receipt_id = r.id
WHERE r.schema_name = $1 AND ($3::text IS NULL OR r.user_hash = (
    SELECT sha256(t.salt || convert_to(t.instance_id || $3::text, 'UTF8')) FROM usersync.target AS t
    WHERE t.schema_name = $1
))
ORDER BY r.id DESC
LIMIT $2;

-- links(schema_name, after_position, limit)
SELECT
    c.position, c.hash,
    CASE WHEN r.id IS NOT NULL THEN {content} END AS content,
    r.act IN ('begun', 'archived', 'erased', 'retained') AS removal,
    EXISTS (
        SELECT FROM usersync.tombstones AS b WHERE b.schema_name = $1 AND b.user_hash = r.user_hash
    ) AS has_tombstone
FROM usersync.receipt_chain AS c
LEFT JOIN usersync.receipts AS r ON r.id = c.receipt_id AND r.schema_name = $1
WHERE c.schema_name = $1 AND c.position > $2
ORDER BY c.position
LIMIT $3;

-- count_unlinked(schema_name)
SELECT count(*) FROM usersync.receipts AS r
WHERE r.schema_name = $1 AND NOT EXISTS (SELECT FROM usersync.receipt_chain AS c WHERE c.receipt_id = r.id);
