-- A user's own request that Clerk has carried out is lifted no more, whatever Clerk refuses later.

ALTER TABLE usersync.claims ADD COLUMN gone_from_clerk_at timestamptz;
COMMENT ON COLUMN usersync.claims.gone_from_clerk_at IS
    'Since when Clerk has answered a user''s own request with 200 or 404: what is left to do is ours.';
