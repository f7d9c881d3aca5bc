-- Users who delete their own accounts: one more kind of claim.

ALTER TABLE usersync.claims DROP CONSTRAINT claims_kind_check;
ALTER TABLE usersync.claims ADD CONSTRAINT claims_kind_check
    CHECK (kind IN ('deletion', 'catch_up', 'second_sweep', 'holdback', 'creation', 'own_request'));
