"""The database underneath: a server, databases with our schema and a log of everything, a schema for each history.

Histories share a database and its connections, as targets do; each has an application schema of its own. Triggers of
the simulation write down every row that comes and goes, who did it, and when; so a transaction that is rolled back
takes its entries along.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncpg

from controller.postgres import migration_sql
from tests.simulation.connections import RealConnections
from tests.simulation.loop import START
from tests.support.databases import TABLES

if TYPE_CHECKING:
    from pathlib import Path

    from controller.cli.demo.local_postgres import LocalPostgres

HISTORIES_PER_DATABASE = 150
LOG = """
CREATE SCHEMA simulation;
CREATE TABLE simulation.log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schema_name text NOT NULL,
    actor text NOT NULL DEFAULT coalesce(current_setting('simulation.actor', true), ''),
    xid bigint NOT NULL DEFAULT txid_current(),
    what text NOT NULL,
    table_name text,
    user_id text,
    row_id text,
    content jsonb,
    at double precision NOT NULL DEFAULT extract(epoch FROM usersync.clock()),
    true_at double precision NOT NULL DEFAULT simulation.true_time()
);
CREATE INDEX ON simulation.log (schema_name, id);

CREATE FUNCTION simulation.log_row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    r record;
BEGIN
    IF TG_OP = 'DELETE' THEN r := OLD; ELSE r := NEW; END IF;
    INSERT INTO simulation.log (schema_name, what, table_name, user_id, row_id, content)
    VALUES (TG_TABLE_SCHEMA, lower(TG_OP), TG_TABLE_NAME, r.user_id, r.id::text, jsonb_build_object(
        'note', r.note, 'created_at', extract(epoch FROM r.created_at)));
    RETURN NULL;
END $$;

CREATE FUNCTION simulation.log_profile() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    r record;
BEGIN
    IF TG_OP = 'DELETE' THEN r := OLD; ELSE r := NEW; END IF;
    INSERT INTO simulation.log (schema_name, what, table_name, user_id, row_id, content)
    VALUES (TG_TABLE_SCHEMA, lower(TG_OP), TG_TABLE_NAME, r.user_id, r.id::text, jsonb_build_object(
        'note', r.note, 'created_at', extract(epoch FROM r.created_at),
        'values', jsonb_build_array(r.first_name, r.email)));
    RETURN NULL;
END $$;

CREATE FUNCTION simulation.log_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    r record;
BEGIN
    IF TG_OP = 'DELETE' THEN r := OLD; ELSE r := NEW; END IF;
    INSERT INTO simulation.log (schema_name, what, table_name, user_id, content)
    VALUES (r.schema_name, CASE TG_OP WHEN 'DELETE' THEN 'forgotten' ELSE 'noted' END, TG_TABLE_NAME, r.user_id,
        to_jsonb(r.updated_at));
    RETURN NULL;
END $$;
CREATE TRIGGER simulation AFTER INSERT OR UPDATE OR DELETE ON usersync.versions
    FOR EACH ROW EXECUTE FUNCTION simulation.log_version();

CREATE FUNCTION simulation.log_ours() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    r jsonb := to_jsonb(NEW);
BEGIN
    IF TG_TABLE_NAME = 'approvals' THEN
        r := r || jsonb_build_object('set', (
            SELECT jsonb_agg(d.user_id ORDER BY d.user_id) FROM usersync.drifted AS d
            JOIN usersync.runs AS u ON u.id = d.run_id AND u.schema_name = NEW.schema_name AND u.state = 'running'
            WHERE d.kind = 'due'));
    END IF;
    INSERT INTO simulation.log (schema_name, what, content) VALUES (NEW.schema_name, TG_TABLE_NAME, r);
    RETURN NULL;
END $$;
CREATE TRIGGER simulation AFTER INSERT ON usersync.runs FOR EACH ROW EXECUTE FUNCTION simulation.log_ours();
CREATE TRIGGER simulation AFTER INSERT ON usersync.tombstones FOR EACH ROW EXECUTE FUNCTION simulation.log_ours();
CREATE TRIGGER simulation AFTER INSERT ON usersync.archive FOR EACH ROW EXECUTE FUNCTION simulation.log_ours();
CREATE TRIGGER simulation AFTER INSERT ON usersync.receipts FOR EACH ROW EXECUTE FUNCTION simulation.log_ours();
CREATE TRIGGER simulation AFTER INSERT OR UPDATE OF last_held_at ON usersync.approvals
    FOR EACH ROW EXECUTE FUNCTION simulation.log_ours();

-- What is owed to a user, from when it is stored until it is done or given up.
CREATE FUNCTION simulation.log_claim() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    r record;
BEGIN
    IF TG_OP = 'DELETE' THEN r := OLD; ELSE r := NEW; END IF;
    INSERT INTO simulation.log (schema_name, what, table_name, user_id)
    VALUES (r.schema_name, CASE TG_OP WHEN 'DELETE' THEN 'unclaimed' ELSE 'claimed' END, r.kind, r.user_id);
    RETURN NULL;
END $$;
CREATE TRIGGER simulation AFTER INSERT OR DELETE ON usersync.claims
    FOR EACH ROW EXECUTE FUNCTION simulation.log_claim();

-- What a run keeps for itself: that is writing too, and the statement says which run it was.
CREATE FUNCTION simulation.log_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO simulation.log (schema_name, what, table_name)
    VALUES (split_part(current_setting('simulation.actor', true), '/', 1), TG_ARGV[0], TG_TABLE_NAME);
    RETURN NULL;
END $$;
CREATE TRIGGER simulation AFTER DELETE ON usersync.suspects FOR EACH STATEMENT
    EXECUTE FUNCTION simulation.log_work('weighed');
CREATE TRIGGER simulation AFTER INSERT ON usersync.listed FOR EACH STATEMENT
    EXECUTE FUNCTION simulation.log_work('worked');
CREATE TRIGGER simulation AFTER INSERT OR DELETE OR UPDATE ON usersync.drifted FOR EACH STATEMENT
    EXECUTE FUNCTION simulation.log_work('worked');
CREATE TRIGGER simulation_end AFTER UPDATE ON usersync.runs FOR EACH STATEMENT
    EXECUTE FUNCTION simulation.log_work('worked');
"""


def _clock(path: Path) -> str:
    line = f"pg_catalog.pg_read_file('{path}')"
    return f"""
CREATE OR REPLACE FUNCTION usersync.clock() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE
    AS $$ SELECT to_timestamp(split_part({line}, '|', 1)::double precision) $$;
CREATE SCHEMA IF NOT EXISTS simulation;
CREATE FUNCTION simulation.true_time() RETURNS double precision LANGUAGE sql VOLATILE PARALLEL SAFE
    AS $$ SELECT split_part({line}, '|', 2)::double precision $$;
"""


@dataclass
class ClockFile:
    """Where the server reads the time: its own, which a history may set back or forward, and the true one."""

    path: Path
    offset: float = 0.0
    _file: int = field(init=False)

    def __post_init__(self) -> None:
        """Make the file."""
        self._file = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o644)
        self.path.chmod(0o644)
        self.write(0.0)

    def write(self, seconds: float) -> None:
        """Set both times; always as many bytes, so that nobody reads half of an old one."""
        at = START.timestamp() + seconds + self.offset
        os.pwrite(self._file, f"{at:020.6f}|{seconds:020.6f}".encode(), 0)

    def now(self, seconds: float) -> Any:
        """The time of the database."""
        return START + timedelta(seconds=seconds + self.offset)


@dataclass
class Stage:
    """One server. Gives each history a schema in a database that some histories share."""

    server: LocalPostgres
    clock: ClockFile
    histories: int = 0
    databases: int = 0
    real: RealConnections | None = None
    monitor: Any = None

    @classmethod
    def build(cls, server: LocalPostgres) -> Stage:
        """Make the template."""
        clock = ClockFile(server.folder / "simulated_clock")
        server.create_database("template_simulation")
        server.execute(
            migration_sql() + _clock(clock.path) + LOG.replace("CREATE SCHEMA simulation;", "", 1),
            database="template_simulation",
        )
        return cls(server, clock)

    async def next_database(self) -> RealConnections:
        """The connections for the next history."""
        if self.real is None or self.histories % HISTORIES_PER_DATABASE == 0:
            await self.close()
            self.databases += 1
            name = f"simulation_{self.databases}"
            self.server.create_database(name, template="template_simulation")
            url = self.server.socket_url(name)
            self.real = RealConnections(url)
            self.monitor = await asyncpg.connect(url)
        self.histories += 1
        return self.real

    async def close(self) -> None:
        """Drop the present database."""
        if self.real is not None:
            await self.monitor.close()
            for connection in self.real.all:
                await connection.close()
            self.server.drop_database(f"simulation_{self.databases}")
            self.real = None


def schema_sql(schema: str, *, unique: bool, indexed: bool) -> str:
    """The application's tables of one history."""
    parts = [f"CREATE SCHEMA {schema};"]
    for table in TABLES:
        is_profile = table == TABLES[0]
        index = "UNIQUE INDEX" if unique and is_profile else "INDEX" if indexed else ""
        columns, events, log = (
            (", first_name text, email text", "INSERT OR UPDATE OR DELETE", "log_profile")
            if is_profile
            else ("", "INSERT OR DELETE", "log_row")
        )
        parts.append(f"""
            CREATE TABLE {schema}.{table} (
                id uuid PRIMARY KEY DEFAULT gen_random_uuid(), user_id text, note text NOT NULL DEFAULT '-',
                created_at timestamptz DEFAULT usersync.clock(){columns});
            CREATE TRIGGER simulation AFTER {events} ON {schema}.{table}
                FOR EACH ROW EXECUTE FUNCTION simulation.{log}();""")
        if index:
            parts.append(f"CREATE {index} ON {schema}.{table} (user_id);")
    return "\n".join(parts)
