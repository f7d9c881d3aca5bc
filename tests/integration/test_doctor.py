"""`usersync doctor`: each finding made true on a real server, and gone once its remedy was followed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from controller.core.diagnosing import diagnose
from controller.core.facts import Given
from controller.core.findings import Diagnosis, Finding, Severity
from controller.core.targets import ClerkSource, Spec
from controller.core.users import Environment
from controller.emulator import ClerkEmulator, EmulatorSettings, Fault, FaultName
from controller.postgres import migrate
from controller.runtime import Subject, examine
from controller.settings import Access, ClerkURLs
from tests.support.databases import execute, fetch_value, seed, seed_users, user_ids
from tests.support.fakes.clock import FakeClock
from tests.support.pgbouncer import pgbouncing
from tests.support.stores import OTHER_INSTANCE, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from controller.cli.demo.local_postgres import LocalPostgres
    from tests.support.supabase import Supabase

URLS = ClerkURLs(allow_insecure=True)
INDEXES = (
    "CREATE UNIQUE INDEX ON user_progress (user_id)",
    *(f"CREATE INDEX ON {table} (user_id)" for table in ("tasks", "daily_checkins", "moods")),
)
ALWAYS = {"RoleIsSuperuser"}
"""Of the tests' own server."""


@dataclass(frozen=True)
class Patient:
    """A database and an instance in good health, until a test has made something of them."""

    url: str
    clerk: ClerkEmulator
    spec: Spec

    async def diagnose(self, *, url: str | None = None, clock: FakeClock | None = None, **more: Any) -> Diagnosis:
        subject = Subject(Given(), more.get("key", self.clerk.secret_key), Access(url or self.url, **_access(more)))
        spec = more.get("spec", self.spec)
        return diagnose(await examine(spec, subject, URLS, clock), spec)

    async def names(self, **more: Any) -> set[str]:
        return {finding.name for finding in (await self.diagnose(**more)).findings} - ALWAYS

    async def finding(self, name: str, **more: Any) -> Finding:
        found = [finding for finding in (await self.diagnose(**more)).findings if finding.name == name]
        assert len(found) == 1
        return found[0]


def _access(more: dict[str, Any]) -> dict[str, str]:
    return {name: more[name] for name in ("ca", "admin_url") if name in more}


@pytest.fixture
async def clerk() -> AsyncIterator[ClerkEmulator]:
    settings = EmulatorSettings(environment=Environment.PRODUCTION, rate_limit=None)
    async with ClerkEmulator(settings, users=3) as emulator:
        yield emulator


@pytest.fixture
async def patient(database_url: str, clerk: ClerkEmulator) -> Patient:
    await execute(database_url, *INDEXES)
    await migrate(database_url)
    await seed_users(database_url, clerk.users)
    return Patient(database_url, clerk, Spec("app/production", clerk=ClerkSource(clerk.url)))


async def test_nothing_is_found_in_good_health_and_nothing_left_unchecked(patient: Patient) -> None:
    diagnosis = await patient.diagnose()
    assert {finding.name for finding in diagnosis.findings} == ALWAYS
    assert diagnosis.unchecked == ()


async def test_nothing_is_changed_by_looking(patient: Patient) -> None:
    await patient.diagnose()
    assert await fetch_value(patient.url, "SELECT count(*) FROM usersync.target") == 0


@pytest.mark.parametrize(
    ("statement", "name", "severity"),
    [
        ("DROP TABLE moods", "TableMissing", Severity.WARNING),
        ("DROP TABLE user_progress", "ProfileTableMissing", Severity.ERROR),
        ("DROP TABLE user_progress, tasks, daily_checkins, moods", "TablesMissing", Severity.ERROR),
        ("ALTER TABLE moods RENAME COLUMN user_id TO owner", "UserIdMissing", Severity.ERROR),
        ("CREATE TABLE notes (user_id text)", "UnlistedTables", Severity.WARNING),
        ("INSERT INTO moods (user_id) VALUES ('system')", "ForeignIds", Severity.NOTE),
        ("INSERT INTO moods (user_id) VALUES ('user_' || repeat('a', 251))", "ForeignIds", Severity.NOTE),
        ("DROP TABLE moods; CREATE VIEW moods AS SELECT * FROM tasks", "NotATable", Severity.ERROR),
        (
            "CREATE TABLE notes (mood uuid REFERENCES moods ON DELETE CASCADE)",
            "UnlistedCascade",
            Severity.ERROR,
        ),
        ("CREATE TABLE notes (mood uuid REFERENCES moods ON DELETE SET NULL)", "LinksNotNoted", Severity.WARNING),
    ],
)
async def test_what_is_wrong_with_the_tables_is_found(
    patient: Patient, statement: str, name: str, severity: Severity
) -> None:
    await execute(patient.url, statement)
    assert name in await patient.names()
    assert (await patient.finding(name)).severity is severity


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("DROP INDEX user_progress_user_id_idx", "UniqueIndexMissing"),
        ("DROP INDEX moods_user_id_idx", "IndexMissing"),
        ("TRUNCATE moods; ALTER TABLE moods ALTER user_id TYPE uuid USING user_id::uuid", "UserIdIsUuid"),
        ("TRUNCATE moods; ALTER TABLE moods ALTER user_id TYPE bigint USING user_id::bigint", "UserIdIsNoText"),
        (
            # The server of the wheel has no ICU, the only provider of such a collation.
            (
                'CREATE COLLATION no_case FROM "C"; UPDATE pg_collation SET collisdeterministic = false '
                "WHERE collname = 'no_case'; ALTER TABLE moods ALTER user_id TYPE text COLLATE no_case"
            ),
            "UserIdCollation",
        ),
    ],
)
async def test_the_sql_of_a_finding_mends_it(patient: Patient, statement: str, name: str) -> None:
    await execute(patient.url, *statement.split("; "))
    remedy = (await patient.finding(name)).remedy
    sql = remedy[remedy.index("CREATE " if "CREATE " in remedy else "ALTER ") :].partition(";")[0]
    await execute(patient.url, sql)
    assert name not in await patient.names()


async def test_a_column_that_cannot_hold_ids_keeps_no_other_look_from_being_made(patient: Patient) -> None:
    await execute(patient.url, "TRUNCATE moods", "ALTER TABLE moods ALTER user_id TYPE uuid USING user_id::uuid")
    await execute(patient.url, "DROP INDEX tasks_user_id_idx", "INSERT INTO tasks (user_id) VALUES ('system')")
    diagnosis = await patient.diagnose()
    assert {finding.name for finding in diagnosis.findings} >= {"UserIdIsUuid", "IndexMissing", "ForeignIds"}
    assert {each.check for each in diagnosis.unchecked} == {"foreign keys", "first contact"}


async def test_a_finding_names_no_user(patient: Patient) -> None:
    await execute(patient.url, "INSERT INTO moods (user_id) VALUES ('legacy-login-77')")
    finding = await patient.finding("ForeignIds")
    assert "public.moods (1 row)" in finding.message
    assert "legacy" not in finding.message + finding.remedy


@pytest.fixture
def poor(patient: Patient, postgres_server: LocalPostgres) -> Iterator[str]:
    """The URL of a role that may read and write the tables, and no more."""
    database = patient.url.rpartition("/")[2]
    postgres_server.execute("CREATE ROLE poor LOGIN")
    for statement in (
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public, usersync TO poor",
        "GRANT USAGE ON SCHEMA usersync TO poor",
    ):
        postgres_server.execute(statement, database=database)
    yield postgres_server.url(database, user="poor")
    postgres_server.execute("DROP OWNED BY poor", database=database)
    postgres_server.execute("DROP ROLE poor")


async def test_a_plain_role_is_no_finding(patient: Patient, poor: str) -> None:
    assert (await patient.diagnose(url=poor)).findings == ()


async def test_a_privilege_that_is_missing_is_found_and_granted_by_its_sql(patient: Patient, poor: str) -> None:
    await execute(patient.url, "REVOKE DELETE ON moods FROM poor")
    await execute(patient.url, (await patient.finding("PrivilegesMissing", url=poor)).remedy)
    assert await patient.names(url=poor) == set()


async def test_a_role_that_row_level_security_hides_rows_from_is_found(patient: Patient, poor: str) -> None:
    await execute(patient.url, "ALTER TABLE moods ENABLE ROW LEVEL SECURITY")
    finding = await patient.finding("RoleSeesNotAll", url=poor)
    assert finding.severity is Severity.ERROR
    assert "public.moods" in finding.message


async def test_a_superuser_is_worth_a_note(patient: Patient) -> None:
    assert (await patient.finding("RoleIsSuperuser")).severity is Severity.NOTE


async def test_a_schema_that_is_missing_is_an_error_only_for_who_may_not_make_it(patient: Patient, poor: str) -> None:
    await execute(patient.url, "DROP SCHEMA usersync CASCADE")
    assert (await patient.finding("SchemaMissing")).severity is Severity.NOTE
    finding = await patient.finding("SchemaMissing", url=poor)
    assert finding.severity is Severity.ERROR
    assert "usersync migrate --print" in finding.remedy


async def test_a_server_that_is_read_only_is_found(patient: Patient, poor: str) -> None:
    await execute(patient.url, "ALTER ROLE poor SET default_transaction_read_only = on")
    assert await patient.names(url=poor) == {"ReadOnly"}


@pytest.mark.parametrize("in_turn", [True, False], ids=["in turn", "last first"])
async def test_a_pooler_in_transaction_mode_is_noticed(patient: Patient, *, in_turn: bool) -> None:
    with pgbouncing(patient.url, size=2, in_turn=in_turn) as pooler:
        assert await patient.names(url=pooler.url) == {"TransactionPooler"}


async def test_a_pooler_in_session_mode_is_none_in_transaction_mode(patient: Patient) -> None:
    with pgbouncing(patient.url, size=2, mode="session") as pooler:
        assert await patient.names(url=pooler.url) == set()


async def test_a_pooler_in_statement_mode_is_refused_in_clear_words(patient: Patient) -> None:
    with pgbouncing(patient.url, mode="statement") as pooler:
        finding = await patient.finding("DatabaseRefused", url=pooler.url)
    assert "statement mode, which permits no transaction" in finding.message


@pytest.mark.parametrize(
    ("url", "name"),
    [("postgres://me@127.0.0.1:1/app", "DatabaseUnavailable"), ("mysql://me@db/app", "InvalidSpec")],
)
async def test_a_database_that_does_not_answer_leaves_the_other_checks(patient: Patient, url: str, name: str) -> None:
    diagnosis = await patient.diagnose(url=url, clock=clock_of(timedelta(minutes=-10)))
    assert {finding.name for finding in diagnosis.findings} == {name, "ClockSkew"}
    assert {each.check for each in diagnosis.unchecked} == {"database", "pinned instance", "the database's clock"}


async def test_a_ca_that_the_server_is_not_of_is_found(patient: Patient) -> None:
    finding = await patient.finding("InvalidSpec", ca="no certificate")
    assert "PEM" in finding.message


def clock_of(ahead: timedelta) -> FakeClock:
    """Our clock, ahead of Clerk's and of the database's."""
    return FakeClock(datetime.now(UTC) + ahead)


@pytest.mark.parametrize(
    ("ahead", "severity"),
    [(timedelta(minutes=1), Severity.WARNING), (timedelta(minutes=-10), Severity.ERROR)],
)
async def test_a_clock_of_ours_that_is_wrong_is_found(patient: Patient, ahead: timedelta, severity: Severity) -> None:
    finding = await patient.finding("ClockSkew", clock=clock_of(ahead))
    assert finding.severity is severity
    assert "Clerk's by" in finding.message
    assert "the database's by" in finding.message
    assert "this machine's clock" in finding.message


async def test_the_key_of_another_instance_is_found(patient: Patient) -> None:
    async with opened(patient.url, pin=False) as database:
        await database.pin_instance(OTHER_INSTANCE)
    assert await patient.names() == {"WrongInstance"}
    named = replace(patient.spec, clerk=replace(patient.spec.clerk, instance_id="ins_named"))
    diagnosis = await patient.diagnose(spec=named)
    assert [finding.name for finding in diagnosis.findings if finding.name not in ALWAYS] == ["WrongInstance"] * 2


async def test_a_database_of_other_users_is_found_before_first_contact(patient: Patient) -> None:
    await seed(patient.url, "tasks", user_ids(20))
    finding = await patient.finding("UnknownPopulation")
    assert "Of 23 sampled users" in finding.message
    assert await fetch_value(patient.url, "SELECT count(*) FROM usersync.target") == 0


async def test_first_contact_is_looked_at_also_where_our_schema_is_not_there_yet(patient: Patient) -> None:
    await execute(patient.url, "DROP SCHEMA usersync CASCADE")
    await seed(patient.url, "tasks", user_ids(20))
    assert await patient.names() == {"SchemaMissing", "UnknownPopulation"}


@pytest.mark.parametrize(
    ("fault", "name"),
    [(FaultName.FORBIDDEN, "ClerkRefused"), (FaultName.SERVER_ERROR, "ClerkUnavailable")],
)
async def test_a_clerk_that_does_not_answer_leaves_the_other_checks(
    patient: Patient, clerk: ClerkEmulator, fault: FaultName, name: str
) -> None:
    clerk.switch_on(Fault(fault))
    await execute(patient.url, "DROP INDEX moods_user_id_idx")
    diagnosis = await patient.diagnose()
    assert {finding.name for finding in diagnosis.findings} - ALWAYS == {name, "IndexMissing"}
    assert {each.check for each in diagnosis.unchecked} == {"instance", "Clerk's clock"}


async def test_a_key_that_must_not_be_sent_is_not(patient: Patient) -> None:
    spec = replace(patient.spec, clerk=ClerkSource("http://clerk.example.com"))
    assert "ClerkURLNotAllowed" in await patient.names(spec=spec)


async def test_open_tables_and_broken_policies_are_found(supabase: Supabase, patient: Patient) -> None:
    url = supabase.url()
    await execute(url, *INDEXES, "TRUNCATE user_progress, tasks, daily_checkins, moods")
    await migrate(url)
    assert await patient.names(url=url) == {"RowLevelSecurityOff"}
    await execute(
        url,
        *(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY" for table in ("user_progress", "tasks", "moods")),
        "CREATE POLICY original ON tasks USING (auth.uid()::text = user_id)",
        "CREATE POLICY showcase ON moods FOR SELECT USING (true)",
    )
    findings = {finding.name: finding for finding in (await patient.diagnose(url=url)).findings}
    assert set(findings) == {"PoliciesBroken", "RowLevelSecurityOff", "PoliciesOpen", "PoliciesMissing"}
    assert "--replace-broken" in findings["PoliciesBroken"].remedy
    assert findings["PoliciesBroken"].severity is Severity.ERROR
    assert 'moods ("showcase")' in findings["PoliciesOpen"].message
    assert "user_progress" in findings["PoliciesMissing"].message
