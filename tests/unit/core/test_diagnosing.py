"""Findings that need no server to be true; the others are in tests/integration/test_doctor.py."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.core.diagnosing import diagnose
from controller.core.facts import (
    ClerkFacts,
    DatabaseFacts,
    Facts,
    Failed,
    Given,
    KeyForm,
    Population,
    Protection,
    SchemaFacts,
    ServerFacts,
    TableFacts,
    skew,
)
from controller.core.findings import Severity
from controller.core.policies import Security
from controller.core.targets import DEFAULT_TABLES, Deletion, DeletionPolicy, RowLevelSecurity, Spec
from controller.core.users import Environment, Instance

SPEC = Spec("app/production")
INSTANCE = Instance("ins_mine", Environment.PRODUCTION)
SERVER = ServerFacts("aws-0-eu.pooler.supabase.com", 6543, Protection.VERIFIED, "usersync_controller", may_create=False)
GOOD = Facts(
    Given(),
    ClerkFacts(INSTANCE),
    DatabaseFacts(
        SERVER,
        SchemaFacts(3, 3, "ins_mine"),
        tuple(TableFacts(table, f"public.{table.name}", "user_id") for table in DEFAULT_TABLES),
        (),
        (),
        (),
        Security("public"),
    ),
)


def server(**changes: object) -> Facts:
    assert isinstance(GOOD.database, DatabaseFacts)
    return replace(GOOD, database=replace(GOOD.database, server=replace(SERVER, **changes)))  # type: ignore[arg-type]  # names and values belong to the test


def found(facts: Facts, spec: Spec = SPEC) -> dict[str, Severity]:
    return {finding.name: finding.severity for finding in diagnose(facts, spec).findings}


def test_nothing_is_found_where_all_is_well() -> None:
    diagnosis = diagnose(GOOD, SPEC)
    assert (diagnosis.findings, diagnosis.unchecked, diagnosis.is_grave) == ((), (), False)


@pytest.mark.parametrize(
    ("given", "name", "severity"),
    [
        (Given(key=KeyForm.PUBLISHABLE), "PublishableKey", Severity.ERROR),
        (Given(key=KeyForm.OTHER), "KeyMalformed", Severity.ERROR),
        (Given(key=KeyForm.DEVELOPMENT), "DevelopmentInstance", Severity.NOTE),
        (Given(missing=("CLERK_SECRET_KEY is not set.",)), "SecretMissing", Severity.ERROR),
        (Given(front_end=("NEXT_PUBLIC_SUPABASE_URL",)), "FrontEndOnly", Severity.ERROR),
        (Given(webhook_problems=("It is too short.",)), "WebhookSecretInvalid", Severity.ERROR),
        (Given(webhook_secrets=0), "NoWebhooks", Severity.NOTE),
    ],
)
def test_what_was_given_is_judged_by_its_form(given: Given, name: str, severity: Severity) -> None:
    assert found(replace(GOOD, given=given)) == {name: severity}


@pytest.mark.parametrize(
    ("protection", "expected"),
    [
        (Protection.LOCAL, {}),
        (Protection.VERIFIED, {}),
        (Protection.CHAIN_ONLY, {"TLSHostNotVerified": Severity.NOTE}),
        (Protection.UNVERIFIED, {"TLSNotVerified": Severity.WARNING}),
        (Protection.MAYBE, {"TLSNotVerified": Severity.WARNING}),
        (Protection.NONE, {"TLSOff": Severity.ERROR}),
    ],
)
def test_a_connection_that_is_not_verified_is_found(protection: Protection, expected: dict[str, Severity]) -> None:
    assert found(server(protection=protection)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"port": 5432}, {"SessionPooler": Severity.WARNING}),
        ({"transaction_pooler": True}, {"TransactionPooler": Severity.NOTE}),
        ({"host": "db.abcdef.supabase.co", "port": 5432}, {"DirectConnection": Severity.NOTE}),
    ],
)
def test_how_the_server_is_reached_is_told(changes: dict[str, object], expected: dict[str, Severity]) -> None:
    assert found(server(**changes)) == expected


SECONDS, MINUTES = timedelta(seconds=1), timedelta(minutes=1)


@pytest.mark.parametrize(
    ("clerk", "database", "severity", "whose"),
    [
        (4 * SECONDS, -4 * SECONDS, None, ""),
        (6 * SECONDS, 6 * SECONDS, Severity.WARNING, "this machine's clock"),
        (-6 * MINUTES, -6 * MINUTES, Severity.ERROR, "this machine's clock"),
        (0 * SECONDS, 9 * SECONDS, Severity.WARNING, "Probably the database's clock"),
    ],
)
def test_clocks_that_differ_are_found_and_whose_is_wrong(
    clerk: timedelta, database: timedelta, severity: Severity | None, whose: str
) -> None:
    findings = diagnose(replace(server(ahead=database), clerk=ClerkFacts(INSTANCE, clerk)), SPEC).findings
    assert [finding.severity for finding in findings] == ([severity] if severity else [])
    assert all(whose in finding.message for finding in findings)


NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("shown", "ahead"),
    [
        (NOON, timedelta()),
        (NOON + 2 * SECONDS, timedelta()),
        (NOON + 10 * SECONDS, 7 * SECONDS),
        (NOON - 10 * SECONDS, -9 * SECONDS),
    ],
)
def test_a_slow_answer_and_whole_seconds_are_no_skew(shown: datetime, ahead: timedelta) -> None:
    assert skew(shown, shown + SECONDS, before=NOON, after=NOON + 3 * SECONDS) == ahead


def test_another_instance_than_the_one_named_is_found() -> None:
    spec = replace(SPEC, clerk=replace(SPEC.clerk, instance_id="ins_other"))
    assert found(GOOD, spec) == {"WrongInstance": Severity.ERROR}


@pytest.mark.parametrize(("known", "names"), [(100, set()), (99, {"UnknownPopulation"})])
def test_a_database_of_other_users_is_found_by_less_than_half(known: int, names: set[str]) -> None:
    assert set(found(replace(GOOD, population=Population(200, known)))) == names


def test_a_side_that_does_not_answer_leaves_the_checks_of_the_other() -> None:
    broken = replace(server(superuser=True), clerk=Failed("Clerk did not answer.", "ClerkUnavailable"))
    diagnosis = diagnose(broken, SPEC)
    assert {finding.name for finding in diagnosis.findings} == {"ClerkUnavailable", "RoleIsSuperuser"}
    assert {each.check for each in diagnosis.unchecked} == {"instance", "Clerk's clock"}


def test_a_side_that_does_not_answer_is_an_error_with_a_command_to_try() -> None:
    facts = replace(GOOD, database=Failed("It cannot be reached.", "DatabaseUnavailable"))
    (finding,) = diagnose(facts, SPEC).findings
    assert (finding.name, finding.severity) == ("DatabaseUnavailable", Severity.ERROR)
    assert "psql" in finding.remedy


@pytest.mark.parametrize("part", ["schema", "tables", "unlisted", "cascades", "foreign", "security"])
def test_a_look_that_fails_is_said_and_no_finding(part: str) -> None:
    assert isinstance(GOOD.database, DatabaseFacts)
    facts = replace(GOOD, database=replace(GOOD.database, **{part: Failed("No.", "DatabaseRefused")}))
    diagnosis = diagnose(facts, SPEC)
    assert diagnosis.findings == ()
    assert {each.why for each in diagnosis.unchecked} == {"No."}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (DeletionPolicy.ARCHIVE, {"LinksNotNoted": Severity.WARNING}),
        (DeletionPolicy.ERASE, {}),
        (DeletionPolicy.RETAIN, {}),
    ],
)
def test_links_that_are_not_noted_are_found_where_something_could_be_restored(
    policy: DeletionPolicy, expected: dict[str, Severity]
) -> None:
    assert isinstance(GOOD.database, DatabaseFacts)
    facts = replace(GOOD, database=replace(GOOD.database, unnoted=("By a key rows lose what refers.",)))
    assert found(facts, replace(SPEC, deletion=Deletion(policy))) == expected


def test_policies_that_nobody_wants_looked_at_are_not() -> None:
    assert isinstance(GOOD.database, DatabaseFacts)
    facts = replace(GOOD, database=replace(GOOD.database, security=Failed("No.", "DatabaseRefused")))
    spec = replace(SPEC, row_level_security=RowLevelSecurity.IGNORE)
    assert diagnose(facts, spec).unchecked == ()


def test_errors_come_before_warnings_and_notes() -> None:
    facts = replace(server(port=5432), given=Given(key=KeyForm.PUBLISHABLE, webhook_secrets=0))
    severities = [finding.severity for finding in diagnose(facts, SPEC).findings]
    assert severities == [Severity.ERROR, Severity.WARNING, Severity.NOTE]


def test_every_finding_says_what_happens_and_what_mends_it() -> None:
    facts = replace(
        server(port=5432, protection=Protection.NONE, superuser=True, read_only=True),
        given=Given(key=KeyForm.PUBLISHABLE, missing=("X is not set.",), front_end=("Y",), webhook_secrets=0),
        population=Population(200, 0),
    )
    findings = diagnose(facts, SPEC).findings
    assert len(findings) == 9
    assert all(finding.message and finding.consequence and finding.remedy for finding in findings)
