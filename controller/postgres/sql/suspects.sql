-- may_read_epoch()
SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')
    AND has_function_privilege('pg_catalog.pg_current_wal_lsn()', 'EXECUTE')
    AND has_function_privilege('pg_catalog.pg_walfile_name(pg_lsn)', 'EXECUTE');

-- epoch()
-- Which history of which database this is: another one after a fail-over, after a restore from a backup, after a
-- dump was loaded.
SELECT concat_ws(
    '/', (SELECT system_identifier FROM pg_control_system()), left(pg_walfile_name(pg_current_wal_lsn()), 8),
    'usersync.suspects'::regclass::oid
);

-- epoch_by_table()
-- Where the role may not ask for more: at least another one after a dump was loaded.
SELECT concat_ws('/', 'usersync.suspects'::regclass::oid);

-- forget_marks(run_id)
DELETE FROM usersync.drifted WHERE run_id = $1 AND kind IN ('due', 'approved');

-- note_suspects(run_id, schema_name, instance_id, epoch, longest_gap)
-- The absence goes on from one complete listing to the next; a gap, another instance, another history of the
-- database or a clock that was set back begin it anew.
INSERT INTO usersync.suspects AS s (schema_name, user_id, instance_id, epoch, absent_since, last_absent_at)
SELECT $2, d.user_id, $3, $4, r.started_at, r.started_at
FROM usersync.drifted AS d JOIN usersync.runs AS r ON r.id = d.run_id
WHERE d.run_id = $1 AND d.kind = 'orphaned'
ON CONFLICT (schema_name, user_id) DO UPDATE SET
    instance_id = excluded.instance_id,
    epoch = excluded.epoch,
    last_absent_at = excluded.last_absent_at,
    absent_since = CASE
        WHEN s.instance_id = excluded.instance_id AND s.epoch = excluded.epoch
            AND excluded.last_absent_at - s.last_absent_at BETWEEN interval '0' AND $5::interval
        THEN s.absent_since
        ELSE excluded.absent_since
    END;

-- forget_suspects(run_id, schema_name)
-- Seen again, or without rows by now: should he be missed once more, his absence begins anew.
DELETE FROM usersync.suspects AS s
WHERE s.schema_name = $2
    AND NOT EXISTS (
        SELECT FROM usersync.drifted AS d WHERE d.run_id = $1 AND d.kind = 'orphaned' AND d.user_id = s.user_id
    );

-- mark_due(run_id, schema_name, grace_period)
-- Absent for long enough, and no holdback of an event to be waited for; or deleted before, and what came back stays
-- deleted; or announced by an event, proved then, and kept waiting by the limits alone.
INSERT INTO usersync.drifted (run_id, kind, user_id)
SELECT $1, 'due', d.user_id
FROM usersync.drifted AS d
JOIN usersync.runs AS r ON r.id = d.run_id
JOIN usersync.target AS t ON t.schema_name = $2
JOIN usersync.suspects AS s ON s.schema_name = $2 AND s.user_id = d.user_id
WHERE d.run_id = $1 AND d.kind = 'orphaned' AND (
    r.started_at - s.absent_since >= $3::interval AND NOT EXISTS (
        SELECT FROM usersync.claims AS c
        WHERE c.schema_name = $2 AND c.user_id = d.user_id AND c.kind = 'holdback'
            AND c.holdback IS NOT NULL AND c.due_at > (SELECT usersync.clock())
    )
    OR EXISTS (
        SELECT FROM usersync.buried AS b
        WHERE b.schema_name = $2 AND b.user_hash = sha256(t.salt || convert_to(t.instance_id || d.user_id, 'UTF8'))
    )
    OR EXISTS (
        SELECT FROM usersync.claims AS c
        WHERE c.schema_name = $2 AND c.user_id = d.user_id AND c.kind IN ('deletion', 'holdback') AND c.held_back_at IS NOT NULL
    )
);

-- set_apart(run_id, schema_name, set_number)
UPDATE usersync.drifted AS d SET kind = 'approved'
FROM usersync.held_users AS h
WHERE d.run_id = $1 AND d.kind = 'due' AND h.schema_name = $2 AND h.user_id = d.user_id AND h.set_number <= $3
    AND (h.apart_from IS NULL OR h.apart_from > $3);

-- forget_held_users(run_id, schema_name)
DELETE FROM usersync.held_users AS h
WHERE h.schema_name = $2
    AND NOT EXISTS (
        SELECT FROM usersync.drifted AS d
        WHERE d.run_id = $1 AND d.kind IN ('due', 'approved') AND d.user_id = h.user_id
    );

-- weigh(run_id, schema_name, window)
WITH counted AS MATERIALIZED (
    SELECT DISTINCT user_hash FROM usersync.receipts
    WHERE schema_name = $2 AND counted AND issued_at > (SELECT usersync.clock()) - $3::interval
)
SELECT
    (SELECT count(*) FROM usersync.drifted WHERE run_id = $1 AND kind = 'due') AS due,
    (SELECT count(*) FROM usersync.drifted WHERE run_id = $1 AND kind = 'approved') AS approved,
    (SELECT count(*) FROM usersync.drifted WHERE run_id = $1 AND kind = 'orphaned') AS orphaned,
    (SELECT count(*) FROM counted) AS removed,
    (
        SELECT count(*) FROM usersync.drifted AS d JOIN usersync.target AS t ON t.schema_name = $2
        WHERE d.run_id = $1 AND d.kind = 'due'
            AND sha256(t.salt || convert_to(t.instance_id || d.user_id, 'UTF8')) IN (SELECT user_hash FROM counted)
    ) AS due_counted;

-- find_set(schema_name, digest, valid_for)
SELECT
    header, set_number, used_at IS NOT NULL AS used,
    last_held_at < (SELECT usersync.clock()) - $3::interval AS expired
FROM usersync.approvals WHERE schema_name = $1 AND digest = $2;

-- is_used(schema_name, digest)
SELECT EXISTS (SELECT FROM usersync.approvals WHERE schema_name = $1 AND digest = $2 AND used_at IS NOT NULL);

-- next_set_number(schema_name)
SELECT coalesce(max(set_number), 0) + 1 FROM usersync.approvals WHERE schema_name = $1;

-- add_held_users(run_id, schema_name, set_number)
-- Who was approved and is here all the same joins as a newcomer.
INSERT INTO usersync.held_users AS h (schema_name, user_id, set_number)
SELECT $2, user_id, $3 FROM usersync.drifted WHERE run_id = $1 AND kind = 'due'
ON CONFLICT (schema_name, user_id) DO UPDATE SET set_number = excluded.set_number, apart_from = NULL
WHERE h.apart_from IS NOT NULL;

-- keep_apart(run_id, schema_name, set_number)
-- Who is approved by now is not of the set that is held back beside.
UPDATE usersync.held_users AS h SET apart_from = $3
FROM usersync.drifted AS d
WHERE d.run_id = $1 AND d.kind = 'approved' AND h.schema_name = $2 AND h.user_id = d.user_id AND h.apart_from IS NULL;

-- hold_set(schema_name, digest, header, set_number, users)
-- The very set may have been held before: those who joined it again are of it from now on.
INSERT INTO usersync.approvals (schema_name, digest, header, set_number, users)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (schema_name, digest) DO UPDATE SET
    last_held_at = usersync.clock(), set_number = excluded.set_number
RETURNING held_since, xmax <> 0 AS seen_before;

-- approve(schema_name, digest, given_by)
UPDATE usersync.approvals
SET approved_at = coalesce(approved_at, usersync.clock()), approved_by = coalesce(approved_by, $3)
WHERE schema_name = $1 AND digest = $2;

-- note_approval(run_id, digest, given_by)
UPDATE usersync.runs SET approval = $2, approved_by = $3 WHERE id = $1;

-- use_up(schema_name, digest, run_id)
UPDATE usersync.approvals SET used_at = usersync.clock(), run_id = $3 WHERE schema_name = $1 AND digest = $2;
