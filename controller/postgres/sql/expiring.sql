-- may_expire(schema_name)
-- Of several webhook services one at a time, for a transaction.
SELECT pg_try_advisory_xact_lock(hashtextextended('usersync.expiring/' || $1::text, 0));

-- expire_archive(schema_name, at_most)
-- Rows that somebody holds are left to the next run: this never waits, and nobody waits for it long.
DELETE FROM usersync.archive WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM usersync.archive WHERE schema_name = $1 AND expires_at < (SELECT usersync.clock())
    ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
));

-- expire_links(schema_name, at_most)
DELETE FROM usersync.links WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM usersync.links WHERE schema_name = $1 AND expires_at < (SELECT usersync.clock())
    ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
));

-- expire_deliveries(schema_name, at_most)
DELETE FROM usersync.deliveries WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM usersync.deliveries
    WHERE schema_name = $1 AND received_at < (SELECT usersync.clock()) - interval '90 days'
    ORDER BY received_at LIMIT $2 FOR UPDATE SKIP LOCKED
));

-- expire_runs(schema_name, at_most)
-- Finished ones. By the start as well, which has an index.
DELETE FROM usersync.runs WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM usersync.runs
    WHERE schema_name = $1 AND started_at < (SELECT usersync.clock()) - interval '90 days'
        AND finished_at < (SELECT usersync.clock()) - interval '90 days'
    ORDER BY started_at LIMIT $2 FOR UPDATE SKIP LOCKED
));

-- expire_approvals(schema_name, at_most)
-- Sets that nobody approved. The last one stays, for its number; a used one stays, or its digest would permit again.
DELETE FROM usersync.approvals WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM usersync.approvals AS a
    WHERE schema_name = $1 AND approved_at IS NULL
        AND last_held_at < (SELECT usersync.clock()) - interval '90 days'
        AND set_number < (SELECT max(set_number) FROM usersync.approvals WHERE schema_name = $1)
    LIMIT $2 FOR UPDATE SKIP LOCKED
));

-- expire_second_sweeps(schema_name, at_most)
-- Where webhooks are not served nobody does them but the runs, and each names a user who may have been erased.
DELETE FROM usersync.claims WHERE id = ANY(ARRAY(
    SELECT id FROM usersync.claims
    WHERE schema_name = $1 AND kind = 'second_sweep' AND due_at < (SELECT usersync.clock()) - interval '7 days'
    LIMIT $2 FOR UPDATE SKIP LOCKED
));
