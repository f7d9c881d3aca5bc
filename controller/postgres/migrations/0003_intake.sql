-- Deletions that wait for a holdback, and sign-ups that are looked up before they create anything.

ALTER TABLE usersync.claims DROP CONSTRAINT claims_kind_check;
ALTER TABLE usersync.claims ADD CONSTRAINT claims_kind_check
    CHECK (kind IN ('deletion', 'catch_up', 'second_sweep', 'holdback', 'creation'));
ALTER TABLE usersync.claims ADD COLUMN holdback interval;
COMMENT ON COLUMN usersync.claims.holdback IS
    'How long the claim was put off when it was recorded; NULL once that is over. No run removes its user before.';
CREATE INDEX claims_in_holdback ON usersync.claims (schema_name, due_at) WHERE holdback IS NOT NULL;
