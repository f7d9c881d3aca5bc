"""What a person asks for one user: `restore`, `erase`.

Decides which options mean what, whether a person is asked first, and how the result reads; what Clerk must have said
is `core.requests`. An id is given by the person and never printed back: it is personal data.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from controller.cli.asking import person, require_terminal
from controller.cli.exits import Exit
from controller.cli.inputs import Resource, read_resource
from controller.cli.options import clerk_url_options, output_option, read_user_id, resource_options
from controller.cli.rendering import Output, print_document
from controller.cli.running import run_to_end
from controller.cli.session import Session, debug_option
from controller.core import requests
from controller.core.requests import Erased, Links, Restored, RestoreTerms
from controller.ops.logs import LogFormat, configure
from controller.runtime import open_archive

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from controller.cli.reports import Document
    from controller.core.users import UserId
    from controller.settings import ClerkURLs

REFUSE = "refuse"
SKIP = "skip"


@dataclass(frozen=True, slots=True)
class About:
    """What both commands are told: about whom, of which resource."""

    user_id: UserId
    urls: ClerkURLs
    manifest: str | None
    name: str | None
    output: str

    def resource(self) -> Resource:
        """Read the resource; the logs are set up, and the place to send Clerk's key to is checked."""
        debug = click.get_current_context().ensure_object(Session).debug
        configure(LogFormat.CONSOLE, "debug" if debug else "error")
        resource = read_resource(self.manifest, os.environ, self.name)
        self.urls.check(resource.spec.clerk.api_url)
        return resource


def _read_renamed(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Read `old=new`, several times."""
    renamed = {}
    for value in values:
        old, equals, new = value.partition("=")
        if not (old and equals and new):
            message = f"{value!r} is not of the form OLD=NEW."
            raise click.BadParameter(message, context, option)
        renamed[old] = new
    return renamed


@click.command()
@click.argument("user_id", metavar="USER", callback=read_user_id)
@click.option("--table", "tables", multiple=True, metavar="TABLE", help="Only rows of this table; may be repeated.")
@click.option(
    "--map",
    "renamed",
    multiple=True,
    metavar="OLD=NEW",
    callback=_read_renamed,
    help="The table that was called OLD when the rows were removed is called NEW now; may be repeated.",
)
@click.option(
    "--on-conflict",
    type=click.Choice([REFUSE, SKIP]),
    default=REFUSE,
    show_default=True,
    help="Where a row of today stands in the way: put nothing back, or leave what conflicts in the archive.",
)
@click.option("--duplicates", is_flag=True, help="Put surplus profile rows back too.")
@click.option("--force", is_flag=True, help="Also if Clerk does not know the user, or cannot be asked.")
@click.option("--dry-run", is_flag=True, help="Show what would be put back; change nothing.")
@resource_options
@output_option
@clerk_url_options
@debug_option
def restore(  # noqa: PLR0913 - the options of the command
    tables: tuple[str, ...],
    renamed: dict[str, str],
    on_conflict: str,
    *,
    duplicates: bool,
    force: bool,
    dry_run: bool,
    **about: Any,
) -> Exit:
    """Put back all rows of USER that the archive has, in one transaction, and lift the tombstone.

    Rows of others that referred to them by a key with ON DELETE SET NULL or SET DEFAULT refer to them again, unless
    somebody has pointed them elsewhere.

    Only for a user whom Clerk knows, unless --force is given. What was put back stays in the archive until it
    expires, and is not put back twice.
    """
    asked = About(**about)
    resource = asked.resource()
    dry_run = dry_run or resource.spec.dry_run
    terms = RestoreTerms(person(), tables, renamed, on_conflict == SKIP, duplicates, dry_run)
    restored = run_to_end(_restore(resource, asked, terms, force=force))
    _show(_restored_document(resource, restored, terms), _restored_lines(restored, terms), Output(asked.output))
    for warning in _warnings(restored):
        click.echo(f"Warning: {warning}", err=True)
    skipped = any(restored.skipped.values()) or any(restored.links.skipped.values())
    return Exit.DRIFT if dry_run or skipped else Exit.DONE


async def _restore(resource: Resource, asked: About, terms: RestoreTerms, *, force: bool) -> Restored:
    grace_period = resource.spec.deletion.grace_period if force else None
    async with open_archive(resource.spec, resource.credentials, asked.urls) as opened:
        return await requests.restore(asked.user_id, terms, opened.directory, opened.archive, grace_period=grace_period)


def _warnings(restored: Restored) -> list[str]:
    left = [
        f"{table} has no place any more for what {', '.join(columns)} held; it stays in the archive."
        for table, columns in restored.left.items()
    ]
    return [*left, *restored.warnings]


def _restored_document(resource: Resource, restored: Restored, terms: RestoreTerms) -> Document:
    return {
        "resource": resource.spec.name,
        "dryRun": terms.dry_run,
        "restored": dict(restored.rows),
        "skipped": dict(restored.skipped),
        "leftInArchive": {table: list(columns) for table, columns in restored.left.items()},
        "links": {
            "restored": dict(restored.links.restored),
            "left": dict(restored.links.left),
            "skipped": dict(restored.links.skipped),
        },
        "tombstoneLifted": restored.tombstone_lifted,
        "warnings": _warnings(restored),
    }


def _restored_lines(restored: Restored, terms: RestoreTerms) -> list[str]:
    verb = "Would put back" if terms.dry_run else "Put back"
    lines = [f"{verb} {_rows(restored.rows)}."]
    if any(restored.skipped.values()):
        lines.append(f"Left in the archive, as rows of today stand in their way: {_rows(restored.skipped)}.")
    lines += _links_lines(restored.links, terms)
    if restored.tombstone_lifted:
        lines.append("The tombstone would be lifted." if terms.dry_run else "The tombstone is lifted.")
    return lines


def _links_lines(links: Links, terms: RestoreTerms) -> Iterator[str]:
    if any(links.restored.values()):
        verb = "Would link" if terms.dry_run else "Linked"
        yield f"{verb} to them again, as they were before: {_rows(links.restored)}."
    if any(links.left.values()):
        yield f"Not linked again, as they are gone or linked otherwise by now: {_rows(links.left)}."
    if any(links.skipped.values()):
        yield f"Not linked again, as a constraint or a missing right stands in the way: {_rows(links.skipped)}."


@click.command()
@click.argument("user_id", metavar="USER", callback=read_user_id)
@click.option("--yes", is_flag=True, help="Erase without asking; needed where no terminal is there to ask.")
@resource_options
@output_option
@clerk_url_options
@debug_option
def erase(*, yes: bool, **about: Any) -> Exit:
    """Erase USER for good, at the user's own request: all rows, and what the archive has.

    Clerk must have deleted the user before. What stays is a tombstone and a receipt, which do not name him; and for
    90 seconds, or a week where no webhook service runs, the order to look once more for rows of his.
    """
    asked = About(**about)
    resource = asked.resource()
    spec = resource.spec
    if spec.suspend or spec.dry_run:
        field = "suspend" if spec.suspend else "dryRun"
        message = f"{spec.name} says spec.{field}: true, so nothing is written for it. Take that out of the manifest."
        raise click.UsageError(message)
    if not yes:
        require_terminal(asked.manifest, "Give --yes to erase the user if Clerk proves him gone.")
        tables = ", ".join(table.name for table in spec.target.tables)
        question = f"{spec.name}: Erase all rows of the user from {tables}, and from the archive? It cannot be undone."
        if not click.confirm(question, err=True):
            click.echo("Nothing was erased.", err=True)
            return Exit.DRIFT
    erased = run_to_end(_erase(resource, asked))
    archived = f"; and {erased.archived} from the archive" if erased.archived else ""
    document = {"resource": spec.name, "erased": dict(erased.rows), "erasedFromArchive": erased.archived}
    _show(document, [f"Erased {_rows(erased.rows)}{archived}. The receipt is issued."], Output(asked.output))
    return Exit.DONE


async def _erase(resource: Resource, asked: About) -> Erased:
    async with open_archive(resource.spec, resource.credentials, asked.urls) as opened:
        return await requests.erase(asked.user_id, person(), opened.directory, opened.archive, opened.clock)


def _rows(rows: Mapping[str, int]) -> str:
    counted = [f"{table} {count:,}" for table, count in rows.items() if count]
    return f"{sum(rows.values()):,} rows ({', '.join(counted)})" if counted else "no rows"


def _show(document: Document, lines: list[str], output: Output) -> None:
    if output is Output.TABLE:
        for line in lines:
            click.echo(line)
    else:
        print_document(document, output, sys.stdout)
