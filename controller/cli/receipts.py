"""`usersync receipts`: what became of whom, and whether the receipts are what they were.

Decides how receipts look; they name nobody. Needs the database alone, nothing of Clerk.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.table import Table
from rich.text import Text

from controller.cli.exits import Exit
from controller.cli.inputs import read_place
from controller.cli.options import output_option, read_user_id, resource_options
from controller.cli.rendering import Output, open_console, print_document
from controller.cli.running import run_to_end
from controller.cli.session import debug_option
from controller.kube.shapes import time_text
from controller.runtime import open_receipts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.cli.reports import Document
    from controller.core.receipts import Receipt, Verified
    from controller.core.targets import Spec
    from controller.core.users import UserId
    from controller.settings import Access

_HEAD = re.compile("[0-9a-f]{64}")
_SHOWN = 12
"""Digits of a hash that a person compares."""


def _read_head(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Read a hash as the status and the log show it."""
    head = None if value is None else value.strip().lower()
    if head is not None and not _HEAD.fullmatch(head):
        message = "a head is 64 hexadecimal digits, as status.receipts.head shows it."
        raise click.BadParameter(message, context, option)
    return head


@click.command()
@click.option("--user", "user_id", metavar="USER", callback=read_user_id, help="Only the receipts of this user.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest so many.")
@click.option("--verify", is_flag=True, help="Recompute the chain of all receipts instead of listing them.")
@click.option(
    "--head", metavar="HEX", callback=_read_head, help="With --verify: a head from earlier that must be in the chain."
)
@resource_options
@output_option
@debug_option
def receipts(  # noqa: PLR0913 - the options of the command
    *,
    user_id: UserId | None,
    limit: int,
    head: str | None,
    manifest: str | None,
    name: str | None,
    output: str,
    verify: bool,
) -> Exit:
    """Show the receipts of removed, erased and restored users, the newest last; or verify their chain.

    Each link of the chain is a hash of its receipt and of the link before it. Keep a head (the last link, also in the
    status) elsewhere: with it, --verify finds also what somebody changed who may write everything.
    """
    if head is not None and not verify:
        message = "--head goes with --verify."
        raise click.UsageError(message)
    spec, access = read_place(manifest, os.environ, name)
    if verify:
        return _show_verified(spec, run_to_end(_verify(access, spec, head)), Output(output))
    _show(spec, run_to_end(_read(access, spec, limit, user_id)), Output(output))
    return Exit.DONE


async def _read(access: Access, spec: Spec, limit: int, user_id: UserId | None) -> Sequence[Receipt]:
    async with open_receipts(access, spec.target) as database:
        return await database.receipts(limit, user_id)


async def _verify(access: Access, spec: Spec, head: str | None) -> Verified:
    async with open_receipts(access, spec.target) as database:
        return await database.verify_receipts(head)


def _show(spec: Spec, found: Sequence[Receipt], output: Output) -> None:
    if output is not Output.TABLE:
        document = {"resource": spec.name, "items": [_document(receipt) for receipt in found]}
        print_document(document, output, sys.stdout)
        return
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("Position", "Issued", "Act", "Reason", "Rows", "User", "Link", "Requested by"):
        justify: Literal["left", "right"] = "right" if heading in {"Position", "Rows"} else "left"
        table.add_column(heading, justify=justify, no_wrap=heading != "Requested by")
    for receipt in found:
        cells = (
            "" if receipt.position is None else str(receipt.position),
            time_text(receipt.issued_at),
            receipt.act,
            receipt.reason,
            f"{sum(receipt.rows.values()):,}",
            receipt.user_hash[:_SHOWN],
            (receipt.link or "not yet")[:_SHOWN],
            receipt.requested_by,
        )
        table.add_row(*map(Text, cells))
    open_console(sys.stdout).print(table)


def _document(receipt: Receipt) -> Document:
    document: dict[str, Any] = {
        "position": receipt.position,
        "issuedAt": time_text(receipt.issued_at),
        "act": receipt.act,
        "reason": receipt.reason,
        "requestedBy": receipt.requested_by,
        "rows": dict(receipt.rows),
        "counted": receipt.counted,
        "approval": receipt.approval,
        "run": receipt.run_id,
        "userHash": receipt.user_hash,
        "link": receipt.link,
    }
    return {key: value for key, value in document.items() if value is not None}


def _show_verified(spec: Spec, verified: Verified, output: Output) -> Exit:
    if output is not Output.TABLE:
        document = {
            "resource": spec.name,
            "verified": verified.problem is None,
            "receipts": verified.receipts,
            "head": verified.head,
            "problem": verified.problem,
            "position": verified.position,
        }
        print_document({key: value for key, value in document.items() if value is not None}, output, sys.stdout)
    elif verified.problem is None:
        click.echo(f"{verified.receipts:,} receipts, each as it was issued. Head: {verified.head or 'none yet'}")
    if verified.problem is not None:
        click.echo(f"Error: {verified.problem}", err=True)
        return Exit.ERROR
    return Exit.DONE
