"""PostgreSQL: the only user of asyncpg.

Read in this order: `database` (what the core sees), `runs` and `inbox` (a run, an event), `observing`, `suspecting`,
`creating`, `removing`, `purging`, `reducing` (what they do), `restoring`, `fitting`, `erasing`, `receipting`,
`verifying` (how it is undone, and proved), `locking` (who may write), `shapes`, `references` and `inspecting` (what the
tables are like), `connections` (how a statement reaches the server), `queries` and `sql/` (the statements),
`migrating` and `migrations/` (our own schema), `policing` (row-level security), `probing` (for `usersync doctor`),
`failures`, `urls` and `tls`.
"""

from controller.postgres.counting import Bounds
from controller.postgres.database import Database
from controller.postgres.locking import LockTimes
from controller.postgres.migrating import migrate, migration_sql, schema_version
from controller.postgres.policing import mending_sql

__all__ = ["Bounds", "Database", "LockTimes", "mending_sql", "migrate", "migration_sql", "schema_version"]
