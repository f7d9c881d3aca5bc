-- ensure_lock(schema_name)
INSERT INTO usersync.locks (schema_name, fence) VALUES ($1, 0)
ON CONFLICT (schema_name) DO NOTHING;

-- lock_row(schema_name)
-- A row lock of its own statement: what is read next is no older than the lock.
SELECT fence FROM usersync.locks WHERE schema_name = $1 FOR UPDATE;

-- lock_holder(schema_name, stale_seconds)
SELECT run_id, holder, taken_at, heartbeat_at < usersync.clock() - make_interval(secs => $2) AS stale
FROM usersync.locks WHERE schema_name = $1;

-- take_lock(schema_name, run_id, holder)
UPDATE usersync.locks
SET fence = fence + 1, run_id = $2, holder = $3, taken_at = usersync.clock(), heartbeat_at = usersync.clock()
WHERE schema_name = $1
RETURNING fence;

-- hold_fence(schema_name, fence, run_id)
SELECT 1 FROM usersync.locks WHERE schema_name = $1 AND fence = $2 AND run_id = $3 FOR KEY SHARE;

-- beat(schema_name, fence, run_id)
UPDATE usersync.locks SET heartbeat_at = usersync.clock()
WHERE schema_name = $1 AND fence = $2 AND run_id = $3
RETURNING 1;

-- release_lock(schema_name, fence, run_id)
UPDATE usersync.locks SET fence = fence + 1, run_id = NULL, holder = ''
WHERE schema_name = $1 AND fence = $2 AND run_id = $3
RETURNING 1;

-- open_run(run_id, schema_name, resource, holder, instance_id, actions, dry_run)
INSERT INTO usersync.runs (id, schema_name, resource, holder, instance_id, actions, dry_run)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- finish_run(run_id, outcome)
UPDATE usersync.runs SET state = 'succeeded', outcome = $2::jsonb, finished_at = usersync.clock() WHERE id = $1;

-- fail_run(run_id, reason, message)
UPDATE usersync.runs SET state = 'failed', reason = $2, message = $3, finished_at = usersync.clock()
WHERE id = $1 AND state = 'running';

-- close_interrupted_runs(schema_name, run_id)
-- Under the lock nobody else can be at work on this schema.
UPDATE usersync.runs
SET state = 'failed', reason = 'Interrupted', finished_at = usersync.clock(),
    message = 'The process ended in the middle of the run; the next run did what was left.'
WHERE schema_name = $1 AND state = 'running' AND id <> $2
RETURNING id;

-- forget_listed(run_ids)
DELETE FROM usersync.listed WHERE run_id = ANY($1::text[]::uuid[]);

-- forget_drifted(run_ids)
DELETE FROM usersync.drifted WHERE run_id = ANY($1::text[]::uuid[]);

-- forget_places(run_ids)
DELETE FROM usersync.places WHERE run_id = ANY($1::text[]::uuid[]);

-- forget_listed_values(run_ids)
DELETE FROM usersync.listed_values WHERE run_id = ANY($1::text[]::uuid[]);

-- forget_owed_values(run_ids)
DELETE FROM usersync.owed_values WHERE run_id = ANY($1::text[]::uuid[]);
