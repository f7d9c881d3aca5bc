"""`usersync policies check|apply`: the row-level security of the listed tables.

Decides how it looks and what a person must say before a policy of the application's own goes; what is right is
`core.policies`. Needs the database alone, nothing of Clerk.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from controller.cli.exits import Exit
from controller.cli.inputs import read_place
from controller.cli.options import output_option, resource_options
from controller.cli.rendering import Output, open_console, print_document
from controller.cli.running import run_to_end
from controller.cli.session import debug_option
from controller.core.policies import Form, Replacing, mend, quote_name, unknown_names
from controller.core.securing import judge
from controller.errors import DatabaseRefused
from controller.postgres import mending_sql
from controller.runtime import open_policies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.cli.reports import Document
    from controller.core.policies import Mending, Policy, Security, TableSecurity
    from controller.core.targets import Spec, Target
    from controller.settings import Access

_FORMS = {
    Form.OWN: "own rows",
    Form.BROKEN: "broken: built on auth.uid()",
    Form.OPEN: "every row, for everybody",
    Form.OTHER: "the application's own",
}


@click.group()
def policies() -> None:
    """Check, or create, policies by which signed-in users reach their own rows and nobody else's."""


@policies.command()
@resource_options
@output_option
@debug_option
def check(manifest: str | None, name: str | None, output: str) -> Exit:
    """Say what the policies of the listed tables come to with Clerk's ids; change nothing.

    Ends with 0 where they work (or mean nothing, on a database without Supabase's roles), with 3 where they do not.
    """
    spec, access = read_place(manifest, os.environ, name)
    security = run_to_end(_read(access, spec.target))
    _show(spec, security, Output(output))
    return Exit.DRIFT if judge(security).holds is False else Exit.DONE


@policies.command()
@click.option("--print", "print_only", is_flag=True, help="Print the SQL, for a role that may; change nothing.")
@click.option(
    "--replace",
    "replaced",
    multiple=True,
    metavar="NAME",
    help="Drop this policy of the application's own, on each listed table that has it; may be repeated.",
)
@click.option("--replace-broken", is_flag=True, help="Drop all that are built on auth.uid().")
@resource_options
@debug_option
def apply(
    *, manifest: str | None, name: str | None, replaced: tuple[str, ...], print_only: bool, replace_broken: bool
) -> Exit:
    """Turn row-level security on and create what lets signed-in users at their own rows.

    Where the application has working policies of its own none is added. One of them is dropped only if it is named. A
    table with policies built on auth.uid() is left as it is until these are replaced: beside them every request fails.
    """
    spec, access = read_place(manifest, os.environ, name)
    replacing = Replacing(frozenset(replaced), replace_broken)
    security = run_to_end(_read(access, spec.target))
    if security.missing is not None:
        message = f"{security.missing} Policies for signed-in users can be made on Supabase only."
        raise click.ClickException(message)
    if unknown := unknown_names(security, replacing):
        message = f"No listed table has a policy of the name {', '.join(map(repr, unknown))}."
        raise click.UsageError(message)
    mendings = [mend(table, replacing) for table in security.tables]
    if print_only:
        click.echo(_script(spec.target, mendings), nl=False)
        return Exit.DONE
    _refuse_unalterable(security, mendings)
    after = run_to_end(_apply(access, spec.target, mendings))
    for mending in mendings:
        click.echo(_sentence(mending))
    verdict = judge(after)
    click.echo(verdict.message)
    return Exit.DRIFT if verdict.holds is False else Exit.DONE


async def _read(access: Access, target: Target) -> Security:
    async with open_policies(access, target) as guarded:
        return await guarded.read_security()


async def _apply(access: Access, target: Target, mendings: list[Mending]) -> Security:
    async with open_policies(access, target) as guarded:
        for mending in filter(None, mendings):
            await guarded.mend_security(mending)
        return await guarded.read_security()


def _refuse_unalterable(security: Security, mendings: list[Mending]) -> None:
    """Refuse before anything is done, so that it is all done by one role.

    Raises:
        DatabaseRefused: our role does not own a table.
    """
    wanted = {mending.table for mending in mendings if mending}
    foreign = [table.name for table in security.tables if table.name in wanted and not table.alterable]
    if foreign:
        message = (
            f"Our role may not change the policies of {', '.join(foreign)} in schema {security.schema}: only their "
            "owner may. Give its URL as DATABASE_ADMIN_URL (in a manifest: database.adminUrlSecretRef), or run what "
            "usersync policies apply --print prints in Supabase's SQL editor."
        )
        raise DatabaseRefused(message)


def _script(target: Target, mendings: list[Mending]) -> str:
    lines = ["-- Policies for the tables of usersync. Run it as the owner of the tables.", "BEGIN;"]
    for mending in mendings:
        lines += [f"-- {_sentence(mending)}"]
        for statement in mending_sql(target, mending):
            lines += [statement]
        # Left for a person to decide: what follows the dashes takes a policy of the application's own away.
        dropped = mending_sql(target, type(mending)(mending.table, drop=mending.blocked_by))
        lines += [f"-- {statement}" for statement in dropped]
    return "\n".join([*lines, "COMMIT;", ""])


def _sentence(mending: Mending) -> str:
    if mending.blocked_by:
        return (
            f"{mending.table}: left as it is. {_names(mending.blocked_by)} would break each request of a signed-in "
            "user, being built on auth.uid(); replace them with --replace-broken, or by name with --replace."
        )
    done = [
        f"dropped {_names(mending.drop)}" if mending.drop else "",
        f"created policies for {', '.join(each.value for each in mending.create)}" if mending.create else "",
        "turned row-level security on" if mending.enable else "",
    ]
    return f"{mending.table}: {'; '.join(filter(None, done)) or 'nothing to do'}."


def _names(policies: Sequence[str]) -> str:
    return ", ".join(map(quote_name, policies))


def _show(spec: Spec, security: Security, output: Output) -> None:
    verdict = judge(security)
    if output is not Output.TABLE:
        document = {
            "resource": spec.name,
            "status": {None: "Unknown", True: "True", False: "False"}[verdict.holds],
            "reason": verdict.reason.value,
            "message": verdict.message,
            "tables": [_document(table) for table in security.tables],
        }
        print_document(document, output, sys.stdout)
        return
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("Table", "Security", "Policy", "For", "To", "Lets at"):
        table.add_column(heading)
    for each in security.tables:
        state = ("on" if each.enabled else "off") if each.reachable else "no grants"
        rows = [_cells(policy, each) for policy in each.policies] or [("none", "", "", "")]
        for place, cells in enumerate(rows):
            table.add_row(*map(Text, (each.name if not place else "", state if not place else "", *cells)))
    console = open_console(sys.stdout)
    if security.tables:
        console.print(table)
    console.print(Text(verdict.message, "yellow" if verdict.holds is False else ""), soft_wrap=True)


def _cells(policy: Policy, table: TableSecurity) -> tuple[str, str, str, str]:
    return (policy.name, _commands(policy), ", ".join(sorted(policy.roles)), _FORMS[policy.form(table.column)])


def _commands(policy: Policy) -> str:
    return ", ".join(sorted(command.value for command in policy.commands))


def _document(table: TableSecurity) -> Document:
    return {
        "name": table.name,
        "enabled": table.enabled,
        "reachable": table.reachable,
        "closed": [command.value for command in table.closed()],
        "policies": [
            {
                "name": policy.name,
                "commands": sorted(command.value for command in policy.commands),
                "roles": sorted(policy.roles),
                "permissive": policy.permissive,
                "form": policy.form(table.column).name.lower(),
            }
            for policy in table.policies
        ],
    }
