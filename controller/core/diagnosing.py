"""From facts to findings: what goes wrong in practice, what happens if it stays, and what mends it. Pure.

Decides what is an error, what a warning and what only worth a note, and never lets one unknown fact hide the others.
The tables have a module of their own, `diagnosing_tables`. Used by the command line (`usersync doctor`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from controller.core.diagnosing_tables import of_tables
from controller.core.facts import ClerkFacts, DatabaseFacts, Failed, KeyForm, Protection, SchemaFacts, ServerFacts
from controller.core.findings import Diagnosis, Finding, Severity, Unchecked, error, note, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controller.core.facts import Facts, Given
    from controller.core.targets import Spec

TOKEN_LEEWAY = timedelta(seconds=5)
"""By how much a session token may be from the future; Clerk's own libraries allow as much."""
WEBHOOK_LEEWAY = timedelta(minutes=5)
SUPAVISOR = ".pooler.supabase.com"
DIRECT_PREFIX, DIRECT_SUFFIX = "db.", ".supabase.co"
SESSION_PORT = 5432

_ORDER = tuple(Severity)
_REMEDIES = {
    "ClerkUnavailable": "Correct spec.clerk.apiUrl (CLERK_API_URL), let port 443 of its host through, or look at "
    "Clerk's status page. Where Clerk is up this says 401: curl -sS -o /dev/null -w '%{http_code}' "
    "https://api.clerk.com/v1/instance",
    "ClerkRefused": "Take a valid key from Clerk's dashboard, API keys.",
    "InsecureClerkURL": "Write https://api.clerk.com into spec.clerk.apiUrl, or leave it out.",
    "ClerkURLNotAllowed": "Write https://api.clerk.com into spec.clerk.apiUrl, or start with --clerk-url-allow URL.",
    "DatabaseUnavailable": "Try it from the same place: psql \"$DATABASE_URL\" -c 'SELECT 1'",
    "DatabaseRefused": "Correct what the message names, and try: psql \"$DATABASE_URL\" -c 'SELECT 1'",
}
"""By the reason of the error that kept one side from being looked at."""
_DASHBOARD = "Take it from Clerk's dashboard, API keys: it begins with sk_live_ or sk_test_."


def diagnose(facts: Facts, spec: Spec) -> Diagnosis:
    """Judge everything; errors come first."""
    judged = [*of_given(facts.given), *_of_clerk(facts, spec), *_of_database(facts, spec), *_of_clocks(facts)]
    findings = [each for each in judged if isinstance(each, Finding)]
    unchecked = tuple(each for each in judged if isinstance(each, Unchecked))
    return Diagnosis(tuple(sorted(findings, key=lambda each: _ORDER.index(each.severity))), unchecked)


def of_given(given: Given) -> Iterator[Finding]:
    """Judge keys, variables and secrets by their form."""
    nothing = "No command and no run works."
    if given.front_end:
        yield error(
            "FrontEndOnly",
            f"{', '.join(given.front_end)} in place of the database's URL: they lead to Supabase's HTTP interface.",
            "Nothing runs: through that interface row-level security hides rows, and answers end after 1000 of them.",
            "Set DATABASE_URL to the connection string that Supabase shows under Project -> Connect.",
        )
    for missing in given.missing:
        yield error(
            "SecretMissing",
            missing,
            nothing,
            "Set it (CLERK_SECRET_KEY: Clerk's dashboard, API keys; DATABASE_URL: Supabase, Project -> Connect), or "
            "name Secrets in a manifest and give it with -f.",
        )
    match given.key:
        case KeyForm.PUBLISHABLE:
            yield error("PublishableKey", "The Clerk key is the publishable one (pk_...).", nothing, _DASHBOARD)
        case KeyForm.OTHER:
            yield error("KeyMalformed", "The Clerk key is no secret key of Clerk's form.", nothing, _DASHBOARD)
        case KeyForm.DEVELOPMENT:
            yield note(
                "DevelopmentInstance",
                "The Clerk key is of a development instance (sk_test_...).",
                "Development instances hold 100 users at most, and none of their users exists in production.",
                "For the application's real users take the key of the production instance (sk_live_...).",
            )
        case _:
            pass
    for problem in given.webhook_problems:
        yield error(
            "WebhookSecretInvalid",
            problem,
            "The webhook service refuses to start, or answers 503: events wait, and Svix gives up after a day.",
            "Copy the Signing Secret anew from Clerk's dashboard: Webhooks, the endpoint.",
        )
    if not given.webhook_secrets and not given.webhook_problems:
        yield note(
            "NoWebhooks",
            "No webhook secret is given.",
            "Users are created and removed by runs alone, so as late as the interval is long.",
            "Add an endpoint for user.created and user.deleted in Clerk's dashboard; its secret goes to "
            "spec.clerk.webhookSecretRefs (CLERK_WEBHOOK_SECRET).",
        )


def _of_clerk(facts: Facts, spec: Spec) -> Iterator[Finding | Unchecked]:
    clerk = facts.clerk
    if isinstance(clerk, Failed):
        yield from _of_failure(clerk, "instance")
        return
    yield from _of_instance(clerk, facts, spec)
    population = facts.population
    if isinstance(population, Failed):
        yield Unchecked("first contact", population.why)
    elif population is not None and 2 * population.known < population.sampled:
        yield error(
            "UnknownPopulation",
            f"Of {population.sampled} sampled users of the database, {clerk.instance.id} knows {population.known}: the "
            "key of another instance, or another database.",
            "The first run stops with UnknownPopulation, and does nothing.",
            f"If instance and database do belong together, write spec.clerk.instanceId: {clerk.instance.id}.",
        )


def _of_failure(failed: Failed, check: str) -> Iterator[Finding | Unchecked]:
    """Report what kept a whole side from being looked at; where nobody asked, another finding says why."""
    if failed.reason:
        remedy = _REMEDIES.get(failed.reason, "Correct what the message names.")
        yield error(failed.reason, failed.why, "Every run fails, and every event waits.", remedy)
    yield Unchecked(check, failed.why)


def _of_instance(clerk: ClerkFacts, facts: Facts, spec: Spec) -> Iterator[Finding | Unchecked]:
    instance, named = clerk.instance, spec.clerk.instance_id
    stops = "Every run stops with WrongInstance, and events are answered 503; nothing is done to any row."
    if named is not None and named != instance.id:
        yield error(
            "WrongInstance",
            f"The Clerk key belongs to {instance.id} ({instance.environment.value}), and spec.clerk.instanceId says "
            f"{named}.",
            stops,
            f"Use the key of {named}, or correct instanceId.",
        )
    schema = facts.database.schema if isinstance(facts.database, DatabaseFacts) else facts.database
    if isinstance(schema, Failed):
        yield Unchecked("pinned instance", schema.why)
    elif schema.pinned is not None and schema.pinned != instance.id:
        yield error(
            "WrongInstance",
            f"The Clerk key belongs to {instance.id} ({instance.environment.value}), and this database has been kept "
            f"in step with {schema.pinned}.",
            stops,
            f"Use the key of {schema.pinned}; or the database of {instance.id}.",
        )


def _of_database(facts: Facts, spec: Spec) -> Iterator[Finding | Unchecked]:
    database = facts.database
    if isinstance(database, Failed):
        yield from _of_failure(database, "database")
        return
    server = database.server
    if isinstance(server, Failed):
        yield from _of_failure(server, "database")
        return
    yield from _of_protection(server)
    yield from _of_pooler(server)
    yield from _of_role(server)
    yield from _of_schema(database.schema, server, facts.given)
    yield from of_tables(database, spec)


def _of_protection(server: ServerFacts) -> Iterator[Finding]:
    remedy = (
        "Give the server's CA: spec.database.caSecretRef, or DATABASE_CA without a manifest (on Supabase: Project "
        "Settings -> Database -> SSL Configuration -> Download certificate)."
    )
    match server.protection:
        case Protection.UNVERIFIED | Protection.MAYBE:
            how = (
                "encrypted"
                if server.protection is Protection.UNVERIFIED
                else "encrypted only if the other side offers it"
            )
            yield warning(
                "TLSNotVerified",
                f"The connection to {server.host} is {how}, and whoever answers is believed to be the database.",
                "Somebody on the way can answer in its place, and learns the password and every row.",
                remedy,
            )
        case Protection.NONE:
            yield error(
                "TLSOff",
                f"The connection to {server.host} is not encrypted (sslmode=disable).",
                "Everybody on the way reads the rows of all users.",
                f"Take sslmode=disable out of the database URL. {remedy}",
            )
        case Protection.CHAIN_ONLY:
            yield note(
                "TLSHostNotVerified",
                f"The certificate of {server.host} is verified, and its host name is not.",
                "Another server with a certificate of the same CA would be believed.",
                "Write sslmode=verify-full into the database URL, or give the CA alone (spec.database.caSecretRef).",
            )
        case _:
            pass


def _of_pooler(server: ServerFacts) -> Iterator[Finding]:
    if server.host.endswith(SUPAVISOR) and server.port == SESSION_PORT:
        yield warning(
            "SessionPooler",
            "The database is reached through Supabase's pooler in session mode (port 5432).",
            "Each of our connections, up to 5 for each process, holds one of the few sessions that the pool has; with "
            "several replicas the application finds none left.",
            "Use the transaction mode: port 6543 in the database URL. usersync needs no session.",
        )
    elif server.transaction_pooler:
        yield note(
            "TransactionPooler",
            "The database is reached through a pooler in transaction mode.",
            "Nothing: usersync prepares no statement and keeps no state in a session.",
            "Nothing to do.",
        )
    elif server.host.startswith(DIRECT_PREFIX) and server.host.endswith(DIRECT_SUFFIX):
        yield note(
            "DirectConnection",
            f"The database is reached directly ({server.host}).",
            "Without Supabase's IPv4 add-on that host has an IPv6 address alone, which many clusters cannot reach.",
            "Where it cannot be reached, use the pooler's host with port 6543 (Project -> Connect).",
        )


def _of_role(server: ServerFacts) -> Iterator[Finding]:
    if server.read_only:
        yield error(
            "ReadOnly",
            f"{server.host} is a standby, or set to read-only, as Supabase does with a full disk.",
            "Runs and events fail with DatabaseUnavailable.",
            "Give the URL of the primary, or make room.",
        )
    if server.superuser:
        yield note(
            "RoleIsSuperuser",
            f"Our role {server.role} is superuser.",
            "Whoever steals the database URL has the whole server.",
            "deploy/sql/roles.sql makes roles that may do what usersync needs and nothing more.",
        )


def _of_schema(schema: SchemaFacts | Failed, server: ServerFacts, given: Given) -> Iterator[Finding | Unchecked]:
    if isinstance(schema, Failed):
        yield Unchecked("schema usersync", schema.why)
        return
    if schema.version >= schema.needed:
        return
    found = "is missing" if not schema.version else f"has version {schema.version}; this program needs {schema.needed}"
    if server.may_create or given.has_admin:
        yield note(
            "SchemaMissing",
            f"The schema usersync {found}.",
            "The first run of the controller or of a command makes it; until then the webhook service answers 503.",
            "usersync migrate",
        )
    else:
        yield error(
            "SchemaMissing",
            f"The schema usersync {found}, and our role {server.role} may not make it.",
            "Runs stop with SchemaMissing, and the webhook service answers 503.",
            "usersync migrate --print, for somebody who may create schemas; or give spec.database.adminUrlSecretRef.",
        )


def _of_clocks(facts: Facts) -> Iterator[Finding | Unchecked]:
    clerk = facts.clerk.ahead if isinstance(facts.clerk, ClerkFacts) else None
    server = facts.database.server if isinstance(facts.database, DatabaseFacts) else facts.database
    database = server.ahead if isinstance(server, ServerFacts) else None
    if clerk is None:
        yield Unchecked("Clerk's clock", "Clerk gave no answer to read it from.")
    if database is None:
        yield Unchecked("the database's clock", "The database gave no answer to read it from.")
    off = {name: by for name, by in (("Clerk's", clerk), ("the database's", database)) if by and abs(by) > TOKEN_LEEWAY}
    if not off:
        return
    words = " and ".join(f"{name} by {_seconds(by)}" for name, by in off.items())
    gravest = max(abs(by) for by in off.values())
    whose = "this machine's clock" if len(off) > 1 or database is not None else "one of the two clocks"
    if "the database's" in off and "Clerk's" not in off and clerk is not None:
        whose = "the database's clock"
    yield (error if gravest > WEBHOOK_LEEWAY else warning)(
        "ClockSkew",
        f"Clocks differ from ours: {words}. Probably {whose} is wrong.",
        "From 5 s on session tokens are refused as expired or not yet valid; from 5 min on every webhook is refused. "
        "Grace periods and limits go by the database's clock.",
        "Let the machine follow NTP (chronyc tracking, timedatectl status).",
    )


def _seconds(by: timedelta) -> str:
    return f"{abs(by).total_seconds():.0f} s {'ahead' if by > timedelta() else 'behind'}"
