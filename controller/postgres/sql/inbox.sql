-- record_deliveries(schema_name, message_ids, event_types)
-- Each id once. Sorted: two who record the same ones at once cannot wait for each other.
INSERT INTO usersync.deliveries (schema_name, message_id, event_type)
SELECT $1, d.message_id, d.event_type FROM unnest($2::text[], $3::text[]) AS d (message_id, event_type)
ORDER BY d.message_id COLLATE "C"
ON CONFLICT DO NOTHING
RETURNING message_id;

-- record_claims(schema_name, user_ids, kinds)
-- Each pair once, in the order in which they came. A new message about the same user begins its look-ups anew.
INSERT INTO usersync.claims AS c (schema_name, user_id, kind)
SELECT $1, n.user_id, n.kind FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS n (user_id, kind, place)
ORDER BY n.place
ON CONFLICT (schema_name, user_id, kind)
DO UPDATE SET attempts = 0, present_answers = 0, due_at = usersync.clock(), renewals = c.renewals + 1;

-- record_held_claims(schema_name, user_ids, kinds, holdbacks)
-- A new message about the same user does not begin the holdback anew; one with a shorter holdback shortens it.
INSERT INTO usersync.claims AS c (schema_name, user_id, kind, holdback, due_at)
SELECT $1, h.user_id, h.kind, h.holdback::interval, usersync.clock() + h.holdback::interval
FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS h (user_id, kind, holdback, place)
ORDER BY h.place
ON CONFLICT (schema_name, user_id, kind)
DO UPDATE SET
    attempts = 0, present_answers = 0, due_at = least(c.due_at, excluded.due_at),
    holdback = CASE WHEN excluded.due_at < c.due_at THEN excluded.holdback ELSE c.holdback END;

-- bound_holdbacks(schema_name)
-- The clock was set back since: no holdback lasts longer than it says, from now.
UPDATE usersync.claims SET due_at = usersync.clock() + holdback
WHERE id IN (
    SELECT id FROM usersync.claims
    WHERE schema_name = $1 AND holdback IS NOT NULL AND due_at > (SELECT usersync.clock()) + holdback
    FOR UPDATE SKIP LOCKED
);

-- in_holdback(schema_name, user_id)
SELECT EXISTS (
    SELECT FROM usersync.claims
    WHERE schema_name = $1 AND user_id = $2 AND kind = 'holdback'
        AND holdback IS NOT NULL AND due_at > (SELECT usersync.clock())
);

-- take_claims(schema_name, limit, lease, longest_delay, kinds)
-- Due also if due later than any claim is put off: the clock was set back since. A holdback may be longer, and has
-- a bound of its own; the settling is owed from its end.
UPDATE usersync.claims AS c SET
    due_at = usersync.clock() + $3::interval, holdback = NULL,
    recorded_at = CASE WHEN c.holdback IS NULL THEN c.recorded_at ELSE usersync.clock() END
FROM (
    SELECT id, due_at FROM usersync.claims
    WHERE schema_name = $1 AND kind = ANY($5::text[]) AND (
        due_at <= (SELECT usersync.clock())
        OR due_at > (SELECT usersync.clock()) + $4::interval AND holdback IS NULL
    )
    ORDER BY due_at, id
    LIMIT $2
    FOR UPDATE SKIP LOCKED
) AS due
WHERE c.id = due.id
RETURNING c.id, c.user_id, c.kind, c.attempts, c.present_answers, c.renewals, due.due_at AS was_due_at;

-- next_claim_due(schema_name, kinds)
SELECT greatest(due_at - usersync.clock(), interval '0') FROM usersync.claims
WHERE schema_name = $1 AND kind = ANY($2::text[])
ORDER BY due_at
LIMIT 1;

-- count_claims(schema_name, kinds)
-- What waits on purpose, for a holdback to end, for the limits or for the second look, is not overdue.
SELECT
    kind, count(*) AS waiting, count(*) FILTER (WHERE held_back_at IS NOT NULL) AS held_back,
    (SELECT usersync.clock()) - min(recorded_at) FILTER (
        WHERE kind <> 'second_sweep' AND holdback IS NULL AND held_back_at IS NULL
    ) AS oldest
FROM usersync.claims WHERE schema_name = $1 AND kind = ANY($2::text[])
GROUP BY kind;

-- claim_stands(claim_id)
SELECT EXISTS (SELECT FROM usersync.claims WHERE id = $1);

-- end_claim(claim_id)
DELETE FROM usersync.claims WHERE id = $1;

-- end_unrenewed_claim(claim_id, renewals)
DELETE FROM usersync.claims WHERE id = $1 AND renewals = $2;

-- hasten_claim(claim_id)
-- A new message began it anew since it was taken: it is due at once, also where it was lent again meanwhile.
UPDATE usersync.claims SET due_at = usersync.clock() WHERE id = $1;

-- end_claims_of(schema_name, user_ids, requested)
-- The rows of these users are gone, and so is what is noted of them. A user's own request stands until he has been erased
-- on his request, whoever removes his rows meanwhile.
WITH forgotten AS (
    DELETE FROM usersync.versions WHERE schema_name = $1 AND user_id = ANY($2::text[])
)
DELETE FROM usersync.claims
WHERE schema_name = $1 AND user_id = ANY($2::text[]) AND ($3::boolean OR kind <> 'own_request');

-- record_second_sweeps(schema_name, user_ids, delay)
INSERT INTO usersync.claims (schema_name, user_id, kind, due_at)
SELECT $1, u.id, 'second_sweep', usersync.clock() + $3::interval FROM unnest($2::text[]) AS u (id)
ON CONFLICT (schema_name, user_id, kind) DO UPDATE SET due_at = excluded.due_at;

-- hold_claim(claim_id, delay)
UPDATE usersync.claims
SET held_back_at = coalesce(held_back_at, usersync.clock()), due_at = usersync.clock() + $2::interval
WHERE id = $1;

-- postpone_claim(claim_id, delay, attempts, present_answers)
UPDATE usersync.claims
SET due_at = usersync.clock() + $2::interval, attempts = attempts + $3, present_answers = present_answers + $4
WHERE id = $1;

-- discard_claim(claim_id, present_answers, renewals)
-- A claim that a new message began anew since it was taken stays.
DELETE FROM usersync.claims WHERE id = $1 AND present_answers = $2 AND renewals = $3;
