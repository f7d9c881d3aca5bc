from __future__ import annotations

import pytest

from controller.core.policies import Command, Form, Mending, Policy, Replacing, Security, TableSecurity, mend
from controller.core.securing import judge, secure
from controller.core.targets import Action, RowLevelSecurity, Spec
from controller.errors import DatabaseRefused, DatabaseUnavailable
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.store import FakeStore

OWN = "(( SELECT (auth.jwt() ->> 'sub'::text)) = user_id)"
EVERY = frozenset(Command)


def own(name: str = "mine", *commands: Command, using: str = OWN) -> Policy:
    return Policy(name, frozenset(commands) or EVERY, using=using)


def broken(name: str = "original", roles: frozenset[str] = frozenset({"public"})) -> Policy:
    return Policy(name, EVERY, roles, casts_to_uuid=True, using="((auth.uid())::text = user_id)")


def ours() -> tuple[Policy, ...]:
    return tuple(own(f"usersync_{command.value.lower()}", command) for command in Command)


@pytest.mark.parametrize(
    "using",
    [
        OWN,
        "((auth.jwt() ->> 'sub'::text) = user_id)",
        "(user_id = ( SELECT (auth.jwt() ->> 'sub'::text)))",
        "(( SELECT (auth.jwt() ->> 'sub'::text) AS \"?column?\") = (user_id)::text)",
        "(( SELECT (auth.jwt() ->> 'sub'::text) AS sub) = user_id)",
    ],
)
def test_a_policy_that_compares_the_subject_with_the_user_id_works(using: str) -> None:
    assert own(using=using).form("user_id") is Form.OWN


def test_a_column_that_must_be_quoted_is_recognised() -> None:
    using = "(( SELECT (auth.jwt() ->> 'sub'::text)) = \"User Id\")"
    assert own(using=using).form('"User Id"') is Form.OWN


@pytest.mark.parametrize(
    "using",
    [
        "(( SELECT (auth.jwt() ->> 'sub'::text)) = owner_id)",
        "((( SELECT (auth.jwt() ->> 'sub'::text)) = user_id) OR shared)",
        "(( SELECT (auth.jwt() ->> 'org_id'::text)) = user_id)",
        "(requesting_user_id() = user_id)",
    ],
)
def test_any_other_condition_is_the_applications_own(using: str) -> None:
    assert own(using=using).form("user_id") is Form.OTHER


def test_a_policy_that_lets_a_row_be_given_to_anybody_is_open() -> None:
    assert Policy("give", frozenset({Command.UPDATE}), using=OWN, check="true").form("user_id") is Form.OPEN


def test_a_bare_table_gets_four_policies_before_security_is_turned_on() -> None:
    assert mend(TableSecurity("tasks", enabled=False)) == Mending("tasks", create=tuple(Command), enable=True)


def test_nothing_is_to_be_done_to_a_table_that_has_ours() -> None:
    assert not mend(TableSecurity("tasks", policies=ours()))


def test_nothing_is_added_where_the_application_has_policies_of_its_own() -> None:
    table = TableSecurity("tasks", policies=(own("read own", Command.SELECT),))
    assert not mend(table)
    assert table.closed() == (Command.INSERT, Command.UPDATE, Command.DELETE)


def test_a_table_with_a_broken_policy_is_left_as_it_is() -> None:
    table = TableSecurity("tasks", enabled=False, policies=(broken(), own("other")))
    assert mend(table) == Mending("tasks", blocked_by=("original",))


@pytest.mark.parametrize("replacing", [Replacing(frozenset({"original"})), Replacing(broken=True)])
def test_a_broken_policy_that_is_given_up_is_replaced(replacing: Replacing) -> None:
    mending = mend(TableSecurity("tasks", policies=(broken(),)), replacing)
    assert mending == Mending("tasks", ("original",), tuple(Command))


def test_naming_one_of_two_broken_policies_leaves_the_table() -> None:
    table = TableSecurity("tasks", policies=(broken("one"), broken("two")))
    assert mend(table, Replacing(frozenset({"one"}))) == Mending("tasks", blocked_by=("two",))


def test_replacing_the_broken_leaves_policies_that_are_not() -> None:
    table = TableSecurity("tasks", policies=(broken(), own("everybody's", using="true")))
    assert mend(table, Replacing(broken=True)) == Mending("tasks", ("original",))


def test_what_somebody_made_of_a_policy_of_ours_is_replaced() -> None:
    altered = (*ours()[1:], own("usersync_select", Command.SELECT, using="true"))
    assert mend(TableSecurity("tasks", policies=altered)) == Mending("tasks", ("usersync_select",), (Command.SELECT,))


def test_a_table_that_no_request_can_reach_is_left_as_it_is() -> None:
    assert not mend(TableSecurity("tasks", enabled=False, reachable=False))


def test_a_broken_policy_for_others_than_signed_in_users_breaks_nothing() -> None:
    assert TableSecurity("tasks", policies=(broken(roles=frozenset({"anon"})),)).broken() == ()


@pytest.mark.parametrize(
    ("table", "reason", "words"),
    [
        (TableSecurity("tasks", policies=(broken(),)), "PoliciesBroken", "auth.uid() casts"),
        (TableSecurity("tasks", enabled=False), "RowLevelSecurityOff", "reads and changes the rows of all users"),
        (
            TableSecurity("tasks", enabled=False, policies=(broken(),)),
            "RowLevelSecurityOff",
            "would break each request",
        ),
        (TableSecurity("tasks", policies=(own(using="true"),)), "PoliciesOpen", 'tasks ("mine")'),
        (TableSecurity("tasks"), "PoliciesMissing", "policies apply"),
        (TableSecurity("tasks", policies=(own("usersync_select"),)), "PoliciesMissing", "altered by hand"),
    ],
)
def test_each_fault_is_named_with_what_mends_it(table: TableSecurity, reason: str, words: str) -> None:
    verdict = judge(Security("public", (TableSecurity("moods", policies=ours()), table)))
    assert (verdict.holds, verdict.reason) == (False, reason)
    assert words in verdict.message
    assert "usersync policies apply" in verdict.message


def test_what_mends_it_has_room_in_a_condition_however_many_policies_there_are() -> None:
    policies = tuple(broken(f"Users can do the thing of number {number:04d}") for number in range(50))
    tables = tuple(TableSecurity(f"table_of_the_application_{number}", policies=policies) for number in range(64))
    assert "--replace-broken" in judge(Security("public", tables)).message[:1000]


def test_commands_that_the_application_closes_are_said_and_no_fault() -> None:
    verdict = judge(Security("public", (TableSecurity("tasks", policies=(own("read", Command.SELECT),)),)))
    assert verdict.holds is True
    assert "tasks (INSERT, UPDATE, DELETE)" in verdict.message


def test_a_database_without_supabase_is_not_judged() -> None:
    assert judge(Security("public", missing="No role.")).holds is None


def store(*tables: TableSecurity) -> FakeStore:
    return FakeStore(FakeClock(), security=Security("public", tables))


BARE = TableSecurity("tasks", enabled=False)


def enforcing(*actions: Action, dry_run: bool = False) -> Spec:
    return Spec("app/production", actions=actions, dry_run=dry_run, row_level_security=RowLevelSecurity.ENFORCE)


async def test_enforce_mends_each_table_that_can_be_mended() -> None:
    world = store(BARE, TableSecurity("moods", policies=(broken(),)))
    verdict = await secure(world, enforcing(Action.FIX_PROGRESS))
    assert [mending.table for mending in world.mended] == ["tasks"]
    assert verdict is not None
    assert verdict.reason == "PoliciesBroken"


@pytest.mark.parametrize(
    "spec",
    [
        enforcing(Action.ANALYZE),
        enforcing(Action.FULL_SYNC, dry_run=True),
        Spec("app/production", actions=(Action.FULL_SYNC,)),
    ],
    ids=["Analyze", "dryRun", "Check"],
)
async def test_nothing_is_changed_by_a_run_that_only_reports(spec: Spec) -> None:
    world = store(BARE)
    verdict = await secure(world, spec)
    assert world.mended == []
    assert verdict is not None
    assert verdict.reason == "RowLevelSecurityOff"


async def test_ignore_does_not_look() -> None:
    assert await secure(store(BARE), Spec("app/production", row_level_security=RowLevelSecurity.IGNORE)) is None


async def test_a_role_that_may_not_is_told_what_to_give() -> None:
    world = store(TableSecurity("tasks", enabled=False, alterable=False))
    verdict = await secure(world, enforcing(Action.CLEANUP))
    assert world.mended == []
    assert verdict is not None
    assert verdict.reason == "NotEnforced"
    assert "adminUrlSecretRef" in verdict.message


async def test_a_table_that_cannot_be_mended_keeps_no_other_from_it() -> None:
    world = store(BARE, TableSecurity("moods", enabled=False))
    world.errors["mend_security"] = DatabaseRefused("no")
    verdict = await secure(world, enforcing(Action.CLEANUP))
    assert [mending.table for mending in world.mended] == ["tasks", "moods"]
    assert verdict is not None
    assert (verdict.reason, verdict.holds) == ("NotEnforced", False)


async def test_policies_that_cannot_be_read_fail_no_run() -> None:
    world = store(BARE)
    world.errors["read_security"] = DatabaseUnavailable("gone")
    verdict = await secure(world, enforcing(Action.CLEANUP))
    assert verdict is not None
    assert (verdict.reason, verdict.holds) == ("CheckFailed", None)
