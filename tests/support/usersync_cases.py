"""UserSyncs that are refused, and by which field and remedy; and UserSyncs that are accepted.

The API server (CRD) and the reading of manifests (`controller.kube.specs`) are held to the same ones.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from tests.support.usersyncs import clerk, database, tables, usersync

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.usersyncs import UserSync

NINES = "9" * 400
IDENTIFIER = "1 to 63 bytes long"
DURATION = "30s or more, written as hours, minutes and seconds in this order (1h, 1h30m, 90s) or as whole days (7d)"


HOLDBACK = "must be 1m to 90d, written as hours, minutes and seconds in this order"


def held(holdback: str) -> dict[str, str]:
    """`spec.webhook` with this holdback."""
    return {"onUserDeleted": "Holdback", "holdback": holdback}


class Bad(NamedTuple):
    """A resource that is refused, the field its refusal names, and the remedy it names."""

    what: str
    resource: UserSync
    field: str
    remedy: str


BAD = [
    Bad("no clerk", usersync(clerk=None), "spec.clerk", "Required value"),
    Bad("no database", usersync(database=None), "spec.database", "Required value"),
    Bad("no key of Clerk", usersync(clerk={}), "spec.clerk.secretKeyRef", "Required value"),
    Bad("no database URL", usersync(database={}), "spec.database.urlSecretRef", "Required value"),
    Bad("an action unknown", usersync(actions=["Repair"]), "spec.actions[0]", '"Cleanup", "FixDuplicates", "FullSync"'),
    Bad("an action twice", usersync(actions=["Cleanup", "Cleanup"]), "spec.actions", "twice: remove one"),
    Bad("no action", usersync(actions=[]), "spec.actions", "should have at least 1 items"),
    Bad("six actions", usersync(actions=["Cleanup"] * 6), "spec.actions", "must have at most 5 items"),
    Bad("an action alone", usersync(actions="Cleanup"), "spec.actions", 'must be of type array: "string"'),
    Bad("an interval too short", usersync(interval="29s"), "spec.interval", DURATION),
    Bad("an interval of nothing", usersync(interval=""), "spec.interval", DURATION),
    Bad("an interval without unit", usersync(interval="60"), "spec.interval", DURATION),
    Bad("an interval in weeks", usersync(interval="1w"), "spec.interval", DURATION),
    Bad("an interval of zero days", usersync(interval="0d"), "spec.interval", DURATION),
    Bad("an interval in fractions", usersync(interval="1.5h"), "spec.interval", DURATION),
    Bad("an interval in words", usersync(interval="hourly"), "spec.interval", DURATION),
    Bad("an interval with days and hours", usersync(interval="1d12h"), "spec.interval", DURATION),
    Bad("a negative interval", usersync(interval="-1h"), "spec.interval", DURATION),
    Bad("an interval beyond reason", usersync(interval=f"{NINES}s"), "spec.interval", "may not be more than 24 bytes"),
    Bad("an interval as a number", usersync(interval=3600), "spec.interval", "must be of type string"),
    Bad("suspend as text", usersync(suspend="yes"), "spec.suspend", "must be of type boolean"),
    Bad("dryRun as text", usersync(dryRun="true"), "spec.dryRun", "must be of type boolean"),
    Bad(
        "eleven webhook secrets",
        usersync(clerk=clerk(webhookSecretRefs=[{"name": "a", "key": "k"}] * 11)),
        "spec.clerk.webhookSecretRefs",
        "must have at most 10 items",
    ),
    Bad("an instance without ins_", usersync(clerk=clerk(instanceId="prod")), "spec.clerk.instanceId", "must be ins_"),
    Bad("an empty instance", usersync(clerk=clerk(instanceId="")), "spec.clerk.instanceId", "or leave it out"),
    Bad("an instance cut off", usersync(clerk=clerk(instanceId="ins_")), "spec.clerk.instanceId", "letters or digits"),
    Bad("an instance beyond reason", usersync(clerk=clerk(instanceId=f"ins_{NINES}")), "instanceId", "than 128 bytes"),
    Bad("no share", usersync(clerk=clerk(rateLimitShare=0)), "spec.clerk.rateLimitShare", "greater than or equal to 1"),
    Bad("a share of 101", usersync(clerk=clerk(rateLimitShare=101)), "spec.clerk.rateLimitShare", "equal to 100"),
    Bad("a share in text", usersync(clerk=clerk(rateLimitShare="50%")), "spec.clerk.rateLimitShare", "type integer"),
    Bad("a URL without scheme", usersync(clerk=clerk(apiUrl="api.clerk.com")), "spec.clerk.apiUrl", "http or https"),
    Bad("a URL of ftp", usersync(clerk=clerk(apiUrl="ftp://a.test")), "spec.clerk.apiUrl", "http or https"),
    Bad("a URL without host", usersync(clerk=clerk(apiUrl="https:///v1")), "spec.clerk.apiUrl", "http or https"),
    Bad("a URL that is only a path", usersync(clerk=clerk(apiUrl="/v1")), "spec.clerk.apiUrl", "http or https"),
    Bad("an empty URL", usersync(clerk=clerk(apiUrl="")), "spec.clerk.apiUrl", "such as https://api.clerk.com"),
    Bad("a URL with a user", usersync(clerk=clerk(apiUrl="https://u:p@a.test")), "spec.clerk.apiUrl", "without user"),
    Bad("a URL with a query", usersync(clerk=clerk(apiUrl="https://a.test/?a=b")), "spec.clerk.apiUrl", "query"),
    Bad("a URL beyond reason", usersync(clerk=clerk(apiUrl=f"https://a.test/{NINES}{NINES}")), "apiUrl", "512 bytes"),
    Bad("an empty schema", usersync(database=database(schema="")), "spec.database.schema", IDENTIFIER),
    Bad("a schema of 64", usersync(database=database(schema="s" * 64)), "spec.database.schema", "more than 63 bytes"),
    Bad("a schema with a NUL", usersync(database=database(schema="a\0b")), "spec.database.schema", IDENTIFIER),
    Bad("no tables", usersync(tables=[]), "spec.tables", "should have at least 1 items"),
    Bad("65 tables", usersync(tables=tables(*(f"t{i}" for i in range(65)))), "spec.tables", "at most 64 items"),
    Bad("no Profile table", usersync(tables=[{"name": "a"}]), "spec.tables", "give one of them role: Profile"),
    Bad(
        "two Profile tables",
        usersync(tables=[{"name": "a", "role": "Profile"}, {"name": "b", "role": "Profile"}]),
        "spec.tables",
        "leave role: Profile on one of them only",
    ),
    Bad("a table twice", usersync(tables=tables("a", "b", "b")), "spec.tables", "names a table twice: remove one"),
    Bad("a table without name", usersync(tables=[{"role": "Profile"}]), "spec.tables[0].name", "Required value"),
    Bad("a table of no name", usersync(tables=tables("a", "")), "spec.tables[1].name", IDENTIFIER),
    Bad("a table of 64 bytes in 32 letters", usersync(tables=tables("ä" * 32)), "spec.tables[0].name", IDENTIFIER),
    Bad("a role unknown", usersync(tables=[{"name": "a", "role": "Main"}]), "spec.tables[0].role", '"Profile", "Data"'),
    Bad(
        "an empty user id column",
        usersync(tables=[{"name": "a", "role": "Profile", "userIdColumn": ""}]),
        "spec.tables[0].userIdColumn",
        IDENTIFIER,
    ),
    Bad(
        "an empty created at column",
        usersync(tables=[{"name": "a", "role": "Profile", "createdAtColumn": ""}]),
        "spec.tables[0].createdAtColumn",
        IDENTIFIER,
    ),
    Bad(
        "one column for both",
        usersync(tables=[{"name": "a", "role": "Profile", "createdAtColumn": "user_id"}]),
        "spec.tables[0]",
        "give each its own",
    ),
    *(
        Bad(f"values: {what}", usersync(tables=[{"name": "a", "role": "Profile", "values": values}]), field, remedy)
        for what, values, field, remedy in (
            ("neither", {"c": {}}, "spec.tables[0].values[c]", "exactly one of from and value"),
            ("both", {"c": {"from": "id", "value": "x"}}, "spec.tables[0].values[c]", "exactly one of from and value"),
            ("unknown", {"c": {"from": "email"}}, "spec.tables[0].values[c].from", "publicMetadata.plan"),
            ("private", {"c": {"from": "privateMetadata.x"}}, "spec.tables[0].values[c].from", "must be a field"),
            ("all metadata", {"c": {"from": "publicMetadata"}}, "spec.tables[0].values[c].from", "a path into it"),
            ("an empty step", {"c": {"from": "publicMetadata..x"}}, "spec.tables[0].values[c].from", "a path into it"),
            ("a long path", {"c": {"from": f"publicMetadata.{NINES}"}}, "spec.tables[0].values", "256 bytes"),
            ("no column", {"": {"from": "id"}}, "spec.tables[0].values", "1 to 63 bytes long"),
            ("a long column", {"ä" * 32: {"from": "id"}}, "spec.tables[0].values", "1 to 63 bytes long"),
            ("the id", {"user_id": {"from": "id"}}, "spec.tables[0]", "take it out"),
            ("the time", {"created_at": {"from": "createdAt"}}, "spec.tables[0]", "take it out"),
            ("33", {f"c{i}": {"from": "id"} for i in range(33)}, "spec.tables[0].values", "at most 32 items"),
            ("a fraction", {"c": {"value": 1.5}}, "spec.tables[0].values", "must be of type integer,string"),
            ("a long text", {"c": {"value": NINES}}, "spec.tables[0].values", "256 bytes"),
        )
    ),
    Bad(
        "values of a Data table",
        usersync(tables=[{"name": "a", "role": "Profile"}, {"name": "b", "values": {"c": {"from": "id"}}}]),
        "spec.tables[1]",
        "take them out",
    ),
    Bad(
        "a negative limit of users",
        usersync(deletion={"limits": {"users": -1}}),
        "spec.deletion.limits.users",
        "should be greater than or equal to 0",
    ),
    Bad(
        "a limit of more users than there can be",
        usersync(deletion={"limits": {"users": 1_000_000_001}}),
        "spec.deletion.limits.users",
        "should be less than or equal to 1000000000",
    ),
    Bad(
        "a limit of -1 percent",
        usersync(deletion={"limits": {"percent": -1}}),
        "spec.deletion.limits.percent",
        "should be greater than or equal to 0",
    ),
    Bad(
        "a limit of 101 percent",
        usersync(deletion={"limits": {"percent": 101}}),
        "spec.deletion.limits.percent",
        "should be less than or equal to 100",
    ),
    Bad(
        "half a percent",
        usersync(deletion={"limits": {"percent": 0.5}}),
        "spec.deletion.limits.percent",
        "must be of type integer",
    ),
    Bad("a percentage in text", usersync(deletion={"limits": {"percent": "10%"}}), "limits.percent", "type integer"),
    *(
        Bad(f"a holdback of {text!r}", usersync(webhook=held(text)), "spec.webhook.holdback", HOLDBACK)
        for text in ("59s", "0s", "91d", "2160h1s", "", "1w", "soon")
    ),
    Bad("a holdback alone", usersync(webhook={"holdback": "24h"}), "spec.webhook", "write onUserDeleted: Holdback"),
    Bad(
        "a holdback that is ignored",
        usersync(webhook={"onUserDeleted": "Ignore", "holdback": "24h"}),
        "spec.webhook",
        "or leave it out",
    ),
    Bad(
        "a deletion in a word unknown",
        usersync(webhook={"onUserDeleted": "Later"}),
        "spec.webhook.onUserDeleted",
        '"Immediate", "Holdback", "Ignore"',
    ),
    Bad(
        "a creation in a word unknown",
        usersync(webhook={"onUserCreated": "Immediate"}),
        "spec.webhook.onUserCreated",
        '"CreateProfile", "Ignore"',
    ),
    Bad("a word about policies unknown", usersync(rowLevelSecurity="On"), "spec.rowLevelSecurity", '"Enforce"'),
    Bad("no spec", usersync() | {"spec": None}, "spec", "Required value"),
]

REFERENCES: dict[str, Callable[[dict[str, str]], UserSync]] = {
    "spec.clerk.secretKeyRef": lambda reference: usersync(clerk={"secretKeyRef": reference}),
    "spec.clerk.webhookSecretRefs[0]": lambda reference: usersync(clerk=clerk(webhookSecretRefs=[reference])),
    "spec.database.urlSecretRef": lambda reference: usersync(database={"urlSecretRef": reference}),
    "spec.database.adminUrlSecretRef": lambda reference: usersync(database=database(adminUrlSecretRef=reference)),
    "spec.database.caSecretRef": lambda reference: usersync(database=database(caSecretRef=reference)),
}
SECRET_NAME, SECRET_KEY = "must be that of a Secret in this namespace", "letters, digits, '-', '_' and '.'"
BAD_REFERENCES: list[tuple[dict[str, str], str, str]] = [
    ({"key": "k"}, "name", "Required value"),
    ({"name": "a"}, "key", "Required value"),
    ({"name": "", "key": "k"}, "name", SECRET_NAME),
    ({"name": "Clerk_1", "key": "k"}, "name", SECRET_NAME),
    ({"name": "other/clerk", "key": "k"}, "name", SECRET_NAME),
    ({"name": "-clerk", "key": "k"}, "name", SECRET_NAME),
    ({"name": "a" * 254, "key": "k"}, "name", "may not be more than 253 bytes"),
    ({"name": "a", "key": ""}, "key", SECRET_KEY),
    ({"name": "a", "key": "a/b"}, "key", SECRET_KEY),
    ({"name": "a", "key": "k" * 254}, "key", "may not be more than 253 bytes"),
]
BAD += [
    Bad(f"{where} {json.dumps(reference)[:40]}", resource(reference), f"{where}.{field}", remedy)
    for where, resource in REFERENCES.items()
    for reference, field, remedy in BAD_REFERENCES
]

NOT_YET = [
    usersync(schedule={"cron": "0 3 * * 0"}),
]

ORIGIN = "https://app.example.com"
WITH_WEBHOOKS = clerk(webhookSecretRefs=[{"name": "a", "key": "k"}])


def account_deletion(**fields: object) -> UserSync:
    """A UserSync whose users may delete their accounts, and `fields` over it."""
    given = {"enabled": True, "authorizedParties": [ORIGIN]} | fields
    return usersync(clerk=WITH_WEBHOOKS, accountDeletion={key: given[key] for key in given if given[key] is not None})


BAD += [
    Bad("no authorized party", account_deletion(authorizedParties=[]), "authorizedParties", "name the pages"),
    Bad("authorized parties left out", account_deletion(authorizedParties=None), "authorizedParties", "name the pages"),
    Bad(
        "no webhook secret",
        usersync(accountDeletion={"enabled": True, "authorizedParties": [ORIGIN]}),
        "spec.accountDeletion",
        "spec.clerk.webhookSecretRefs",
    ),
    *(
        Bad(f"the origin {origin}"[:60], account_deletion(authorizedParties=[ORIGIN, origin]), "[1]", remedy)
        for origin, remedy in (
            ("", "as the browser writes it"),
            ("*", "as the browser writes it"),
            ("null", "as the browser writes it"),
            ("app.example.com", "as the browser writes it"),
            ("https://app.example.com/", "without a path or slash"),
            ("https://app.example.com/app", "without a path or slash"),
            ("https://App.example.com", "in lower case"),
            ("https://*.example.com", "as the browser writes it"),
            ("https://u@app.example.com", "as the browser writes it"),
            (f"https://{'a' * 250}.com", "may not be more than 253 bytes"),
        )
    ),
    Bad(
        "21 authorized parties",
        account_deletion(authorizedParties=[f"https://a{number}.test" for number in range(21)]),
        "spec.accountDeletion.authorizedParties",
        "must have at most 20 items",
    ),
    *(
        Bad(f"the issuer {issuer}"[:60], account_deletion(issuer=issuer), "spec.accountDeletion.issuer", remedy)
        for issuer, remedy in (
            ("", "https address"),
            ("clerk.example.com", "https address"),
            ("http://clerk.example.com", "https address"),
            ("https://clerk.example.com/", "without a slash"),
            ("https://a b", "https address"),
        )
    ),
    Bad(
        "reverifyWithin without unit",
        account_deletion(reverifyWithin="10"),
        "spec.accountDeletion.reverifyWithin",
        "must be a duration",
    ),
    Bad("enabled as text", account_deletion(enabled="yes"), "spec.accountDeletion.enabled", "must be of type boolean"),
]

GOOD = [
    usersync(),
    usersync(accountDeletion={}),
    usersync(accountDeletion={"enabled": False, "issuer": None, "authorizedParties": [], "reverifyWithin": "10m"}),
    account_deletion(),
    account_deletion(issuer="https://clerk.example.com", reverifyWithin="0s"),
    account_deletion(issuer="https://example.com/__clerk", reverifyWithin="1h30m"),
    account_deletion(authorizedParties=["http://localhost:3000", "capacitor://localhost", "https://b.test:8443"]),
    usersync(actions=["Analyze", "FixProgress", "Cleanup", "FixDuplicates", "FullSync"]),
    *(usersync(interval=interval) for interval in ("30s", "1h", "1h30m", "90m", "1h1m1s", "999999s", "1d", "9999d")),
    *(
        usersync(clerk=clerk(apiUrl=url))
        for url in ("https://api.clerk.com/v1", "https://api.clerk.com/v1/", "http://127.0.0.1:8080", "http://[::1]:1")
    ),
    usersync(clerk=clerk(instanceId="ins_2abcDEF", rateLimitShare=1)),
    usersync(clerk=clerk(rateLimitShare=100, webhookSecretRefs=[{"name": "a", "key": "k"}] * 10)),
    usersync(database=database(schema="s" * 63)),
    usersync(tables=tables("ä" * 31, 'a "quoted" name; --')),
    usersync(tables=tables(*(f"{'t' * 60}{i}" for i in range(64)))),
    usersync(tables=[{"name": "a", "role": "Profile", "values": {}}, {"name": "b", "values": {}}]),
    *(
        usersync(tables=[{"name": "a", "role": "Profile", "values": {"c": {"from": field}}}])
        for field in ("id", "primaryEmailAddress", "publicMetadata.plan", "publicMetadata.a.b c.ä.1.2.3.4.5")
    ),
    *(
        usersync(tables=[{"name": "a", "role": "Profile", "values": {"ä" * 31: {"value": value}}}])
        for value in ("free", "", 0, -1)
    ),
    usersync(
        tables=[{"name": "a", "role": "Profile", "values": {f"{'c' * 60}{i}": {"from": "id"} for i in range(32)}}]
    ),
    usersync(deletion={"limits": {"users": 0, "percent": 0}}),
    usersync(deletion={"limits": {"users": 1_000_000_000, "percent": 100}}),
    *(usersync(deletion={"policy": policy}) for policy in ("Archive", "Erase", "Retain")),
    *(usersync(deletion={"gracePeriod": duration}) for duration in ("0s", "10s", "24h", "1h30m", "9999d")),
    *(usersync(webhook=held(holdback)) for holdback in ("1m", "60s", "24h", "1h30m", "90d", "2160h")),
    usersync(webhook={"onUserCreated": "Ignore", "onUserDeleted": "Ignore"}),
    usersync(webhook={"onUserDeleted": "Holdback"}),
    *(usersync(rowLevelSecurity=word) for word in ("Ignore", "Check", "Enforce")),
    usersync(
        database=database(adminUrlSecretRef={"name": "a", "key": "b"}, caSecretRef={"name": "a", "key": "ca.crt"})
    ),
    usersync(deletion={"retention": "365d", "limits": {"window": "90m"}}),
]
