-- request_removal(schema_name, user_id, lease)
-- Asked for again, the same request is taken at once, however long it was put off.
INSERT INTO usersync.claims (schema_name, user_id, kind, due_at)
VALUES ($1, $2, 'own_request', usersync.clock() + $3::interval)
ON CONFLICT (schema_name, user_id, kind)
DO UPDATE SET attempts = 0, present_answers = 0, due_at = excluded.due_at
RETURNING id;

-- request_stands(schema_name, user_id)
SELECT EXISTS (SELECT FROM usersync.claims WHERE schema_name = $1 AND user_id = $2 AND kind = 'own_request');

-- keep_request(claim_id)
UPDATE usersync.claims SET gone_from_clerk_at = coalesce(gone_from_clerk_at, usersync.clock()) WHERE id = $1;

-- lift_request(claim_id, schema_name, user_id)
DELETE FROM usersync.claims AS c
WHERE c.id = $1 AND c.gone_from_clerk_at IS NULL AND NOT EXISTS (
    SELECT FROM usersync.buried AS b JOIN usersync.target AS t ON t.schema_name = b.schema_name
    WHERE b.schema_name = $2 AND b.user_hash = sha256(t.salt || convert_to(t.instance_id || $3::text, 'UTF8'))
);

-- receipt_of_request(schema_name, user_id, requested_by)
-- Of a user who is buried, and was erased since: not one who came back meanwhile. It is written when all is gone.
SELECT
    c.position, r.act, r.reason, r.requested_by, r.issued_at, r.counted, r.approval, r.run_id, r.rows::text AS rows,
    encode(r.user_hash, 'hex') AS user_hash, encode(c.hash, 'hex') AS link
FROM usersync.target AS t
JOIN usersync.receipts AS r
    ON r.schema_name = t.schema_name AND r.user_hash = sha256(t.salt || convert_to(t.instance_id || $2::text, 'UTF8'))
JOIN usersync.buried AS b ON b.schema_name = t.schema_name AND b.user_hash = r.user_hash
JOIN usersync.tombstones AS s ON s.id = b.tombstone_id
LEFT JOIN usersync.receipt_chain AS c ON c.receipt_id = r.id
WHERE t.schema_name = $1 AND r.act = 'erased' AND r.reason = 'requested' AND r.requested_by = $3
    AND r.issued_at >= s.buried_at
ORDER BY r.id DESC
LIMIT 1;
