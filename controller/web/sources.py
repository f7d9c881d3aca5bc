"""Where the resources to serve come from: what was read at the start, or (`watched`) a cluster.

Used by `app`, chosen by `cli`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from controller.web.keyring import Declaration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.core.targets import Spec
    from controller.settings import Credentials
    from controller.web.resources import Resources


class Source(Protocol):
    """Tells which resources there are."""

    async def follow(self, resources: Resources) -> None:
        """Keep `resources` as they should be, until cancelled."""


@dataclass(frozen=True, slots=True)
class Given:
    """Resources from files or the environment; they do not change while the process runs."""

    specs: Sequence[tuple[Spec, Credentials]] = field(repr=False)

    async def follow(self, resources: Resources) -> None:
        """Tell them all, once."""
        for spec, credentials in self.specs:
            resources.apply(Declaration(spec, None, partial(_give, credentials)))
        resources.listed = True
        await asyncio.Event().wait()


async def _give(credentials: Credentials) -> Credentials:
    return credentials
