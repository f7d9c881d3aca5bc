"""What a command leaves for the entry point: whether it was called with `--debug`.

Apart from `options`, so that `usersync version` loads nothing that it does not need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


@dataclass(slots=True)
class Session:
    """What the entry point must know of a command after it has ended, however it ended."""

    debug: bool = False


def _note_debug(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if value:
        context.ensure_object(Session).debug = True


def debug_option(command: F) -> F:
    """Add `--debug`; the entry point reads it from the `Session`."""
    option = click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_note_debug,
        help="Show debug logs, and the traceback of an error.",
    )
    return option(command)
