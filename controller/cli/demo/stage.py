"""Where the story is played: on this machine alone (`stage_local`), or on a Kubernetes API server.

Decides only what a stage must offer, so that one story is told, and checked, on both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from controller.cli.demo.application import Application
    from controller.cli.reports import Document
    from controller.emulator import ClerkEmulator


class PromiseBroken(Exception):
    """Something that the story promises was not seen; the message says what was seen instead."""


class Stage(Protocol):
    """The programs and the application, up and running."""

    @property
    def clerk(self) -> ClerkEmulator:
        """The emulated instance; its webhooks reach the webhook service."""

    @property
    def application(self) -> Application:
        """The application's own database."""

    @property
    def service_url(self) -> str:
        """The webhook service, as the application's pages reach it."""

    @property
    def begin_command(self) -> str:
        """What a person does to hand the UserSync over."""

    @property
    def run_command(self) -> str:
        """What a person does to have a run now."""

    @property
    def approve_command(self) -> str:
        """What a person does to permit a held-back deletion."""

    async def approve(self, digest: str) -> Document:
        """Permit the held-back set of this digest; return the report of the run that removes it."""

    async def begin(self) -> Document:
        """Hand the UserSync to the controller, once; return the report of its first run."""

    async def run_now(self) -> Document:
        """Let the controller do a run that begins after this call; return its report, or its failure's."""

    async def analyze(self) -> Document:
        """Do what a person does to see the drift, `usersync analyze`; return its report."""
