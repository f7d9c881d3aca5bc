"""`usersync serve`: the webhook service, on a cluster, on manifests, or on the environment alone.

Decides where the resources come from and refuses at the start what could never be served; the rest is `web.app`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from controller.cli.inputs import Resource, read_resources
from controller.cli.options import clerk_url_options, cluster_options, process_options
from controller.cli.session import Session, debug_option
from controller.errors import InvalidSpec
from controller.ops.logs import LogFormat, configure, drop_messages
from controller.runtime import open_inbox
from controller.web.app import Listening, Service
from controller.web.endpoints import Workshop
from controller.web.metrics import Metrics
from controller.web.signatures import Verifier
from controller.web.sources import Given, Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controller.settings import ClerkURLs


@dataclass(frozen=True, slots=True)
class Asked:
    """The options, named as click names them."""

    urls: ClerkURLs
    host: str
    port: int
    ops_host: str
    ops_port: int
    log_format: str
    log_level: str
    manifests: tuple[str, ...] = ()
    namespace: str | None = None
    all_namespaces: bool = False
    kubeconfig: str | None = None
    context: str | None = None


@click.command()
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104 - the ingress asks from outside the pod
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port of the webhooks; 0 takes a free one, which the log names.",
)
@click.option(
    "-f",
    "--filename",
    "manifests",
    metavar="FILE",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="Manifest with UserSyncs, and Secrets if wanted, instead of a cluster; may be repeated.",
)
@cluster_options
@process_options
@clerk_url_options
@debug_option
def serve(**options: Any) -> None:
    """Run the webhook service: give Clerk's events their effect within a second.

    Serves the UserSyncs of a cluster (--namespace or --all-namespaces), those of manifests (-f), or without either
    what CLERK_SECRET_KEY, CLERK_WEBHOOK_SECRET and DATABASE_URL name. Point Clerk's endpoint at
    /api/webhooks/clerk/NAMESPACE/NAME, or at /api/webhooks/clerk where only one is served. Where a UserSync permits it,
    users delete their own accounts at /api/user/delete. Ends on SIGTERM after what is under way.
    """
    asked = Asked(**options)
    debug = click.get_current_context().ensure_object(Session).debug
    source = _source(asked)
    configure(LogFormat(asked.log_format), "debug" if debug else asked.log_level)
    # what is no HTTP is answered 400; a traceback for each would let strangers fill the log
    drop_messages("aiohttp.server", lambda message: message.startswith("Error handling request"))
    workshop = Workshop(partial(open_inbox, urls=asked.urls), Metrics())
    service = Service(source, workshop, Listening(asked.host, asked.port, asked.ops_port, asked.ops_host))
    try:
        asyncio.run(_run(service))
    except OSError as error:
        message = f"Cannot listen on {asked.host}, port {asked.port} or {asked.ops_port}: {error.strerror or error}"
        raise click.ClickException(message) from error


async def _run(service: Service) -> None:
    # what was imported stays: no collection has to go through it, which stops every request for as long as it takes
    gc.collect()
    gc.freeze()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        stop.set()
        # a second Ctrl-C ends at once
        loop.remove_signal_handler(signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    await service.run(stop)


def _source(asked: Asked) -> Source:
    in_cluster = asked.all_namespaces or asked.namespace is not None
    if asked.all_namespaces and asked.namespace is not None:
        message = "Give either --namespace NAME or --all-namespaces."
        raise click.UsageError(message)
    if asked.manifests and in_cluster:
        message = "Give either -f FILE, or a namespace of a cluster."
        raise click.UsageError(message)
    if (asked.kubeconfig or asked.context) and not in_cluster:
        message = "--kubeconfig and --context are for a cluster: give --namespace NAME or --all-namespaces too."
        raise click.UsageError(message)
    if in_cluster:
        from controller.web.watched import Watched  # noqa: PLC0415 - not for who serves files: 120 MB

        return Watched(asked.namespace, asked.kubeconfig, asked.context)
    resources = [
        resource
        for manifest in asked.manifests or (None,)
        for resource in read_resources(manifest, os.environ, webhooks=True)
    ]
    _check(resources, asked.urls)
    return Given([(resource.spec, resource.credentials) for resource in resources])


def _check(resources: Sequence[Resource], urls: ClerkURLs) -> None:
    """Refuse at the start what no later event could mend.

    Raises:
        InvalidSpec: a webhook secret is missing or malformed, or a resource is there twice.
        InsecureClerkURL, ClerkURLNotAllowed: Clerk's key must not be sent there.
    """
    seen: set[str] = set()
    for resource in resources:
        name = resource.spec.name
        if name in seen:
            message = f"{name} is in more than one file; remove all but one."
            raise InvalidSpec(message)
        seen.add(name)
        urls.check(resource.spec.clerk.api_url)
        try:
            Verifier(resource.credentials.webhook_secrets)
        except InvalidSpec as error:
            message = f"{name}: {error}"
            raise InvalidSpec(message) from error
