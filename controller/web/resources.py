"""Which resources are served, by their names.

Decides that a changed declaration gets a new endpoint, and that a resource without a webhook secret is not served at
all. Fed by `sources`; asked by `webhooks` and `account_deletion`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from controller.web.endpoints import Endpoint, Workshop

if TYPE_CHECKING:
    from controller.web.keyring import Declaration

log = structlog.get_logger(__name__)


class Resources:
    """The endpoints of a process. `listed` once all that there are have been told."""

    def __init__(self, workshop: Workshop) -> None:
        self.listed = False
        self._workshop = workshop
        self._endpoints: dict[str, Endpoint] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def find(self, name: str) -> Endpoint | None:
        """Return the endpoint of the resource `namespace/name`."""
        return self._endpoints.get(name)

    def only(self) -> Endpoint | None:
        """Return the endpoint where there is exactly one."""
        return next(iter(self._endpoints.values())) if len(self._endpoints) == 1 else None

    def ending_accounts(self) -> list[Endpoint]:
        """Return the endpoints whose users may delete their own accounts."""
        return [endpoint for endpoint in self._endpoints.values() if endpoint.spec.account_deletion.enabled]

    def apply(self, declaration: Declaration) -> None:
        """Serve a resource as declared; the same declaration again changes nothing."""
        name = declaration.spec.name
        present = self._endpoints.get(name)
        if present is not None and present.declaration == declaration:
            return
        self._endpoints[name] = endpoint = Endpoint(declaration, self._workshop)
        endpoint.start()
        if present is not None:
            log.info("spec_changed", resource=name)
            self._close(present)

    def remove(self, name: str) -> None:
        """Serve a resource no more."""
        endpoint = self._endpoints.pop(name, None)
        if endpoint is not None:
            log.info("removed", resource=name)
            self._close(endpoint)

    async def close(self) -> None:
        """Close all endpoints, each finishing what is under way."""
        for name in list(self._endpoints):
            self._close(self._endpoints.pop(name))
        if self._closing:
            await asyncio.wait(self._closing)

    def _close(self, endpoint: Endpoint) -> None:
        task = asyncio.create_task(endpoint.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
