-- A set that was held back beside an approved one permits nobody of that.

ALTER TABLE usersync.held_users ADD COLUMN apart_from bigint;
COMMENT ON COLUMN usersync.held_users.apart_from IS
    'The number of the first set that was held back without him, as he was approved then: he is of no set from there on.';
