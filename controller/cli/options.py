"""Options that several commands share, so that they are called and described alike.

Decides names, environment variables and help texts, nothing else. Used by the command modules.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import click

from controller.core.users import parse_user_id
from controller.ops.logs import LogFormat
from controller.settings import ALLOW_INSECURE_VARIABLE, CLERK_API_URL, ClerkURLs

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.core.users import UserId

F = TypeVar("F", bound="Callable[..., Any]")


def manifest_option(command: F) -> F:
    """Add `-f FILE`, given on as `manifest` (a path, `-` for standard input, or None)."""
    option = click.option(
        "-f",
        "--filename",
        "manifest",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True),
        help="Manifest with UserSyncs, and Secrets if wanted; - reads standard input. "
        "Without it: CLERK_SECRET_KEY and DATABASE_URL of the environment.",
    )
    return option(command)


def resource_options(command: F) -> F:
    """Add `-f FILE` and `--name NAME`, for a command that works on one UserSync: `manifest`, `name`."""
    option = click.option("--name", metavar="NAME", help="Which UserSync of the manifest, where it has several.")
    return manifest_option(option(command))


def output_option(command: F) -> F:
    """Add `-o table|json|yaml`, given on as `output`."""
    option = click.option(
        "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True
    )
    return option(command)


def read_user_id(context: click.Context, option: click.Parameter, value: str | None) -> UserId | None:
    """Read a user's id, for an argument or option of click."""
    user_id = parse_user_id(value)
    if value is not None and user_id is None:
        message = f"{value!r} is no id of a Clerk user (user_ and letters or digits)."
        raise click.BadParameter(message, context, option)
    return user_id


def clerk_url_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--clerk-url-allow` and `--allow-insecure-clerk-url`, given on together as `urls`."""

    @functools.wraps(command)
    def with_urls(*args: Any, clerk_url_allow: tuple[str, ...], allow_insecure_clerk_url: bool, **rest: Any) -> Any:
        urls = ClerkURLs(clerk_url_allow or (CLERK_API_URL,), allow_insecure_clerk_url)
        return command(*args, urls=urls, **rest)

    allow = click.option(
        "--clerk-url-allow",
        multiple=True,
        metavar="URL",
        help=f"Where Clerk's key may be sent, instead of {CLERK_API_URL}; may be repeated.",
    )
    insecure = click.option(
        "--allow-insecure-clerk-url",
        is_flag=True,
        envvar=ALLOW_INSECURE_VARIABLE,
        help="Permit http, and loopback addresses; for the demo and tests.",
    )
    return allow(insecure(with_urls))


def cluster_options(command: F) -> F:
    """Add which UserSyncs of which cluster: `namespace`, `all_namespaces`, `kubeconfig`, `context`."""
    for option in (
        click.option("--context", metavar="NAME", help="Context of the kubeconfig."),
        click.option("--kubeconfig", metavar="FILE", type=click.Path(dir_okay=False), help="Instead of $KUBECONFIG."),
        click.option("-A", "--all-namespaces", is_flag=True, help="Serve the UserSyncs of the whole cluster."),
        click.option("-n", "--namespace", metavar="NAME", help="Serve the UserSyncs of this namespace only."),
    ):
        command = option(command)
    return command


def process_options(command: F) -> F:
    """Add what every long-running program has: `ops_host`, `ops_port`, `log_format`, `log_level`."""
    for option in (
        click.option(
            "--log-level",
            type=click.Choice(["debug", "info", "warning", "error"]),
            default="info",
            show_default=True,
        ),
        click.option(
            "--log-format",
            type=click.Choice([kind.value for kind in LogFormat]),
            default=LogFormat.AUTO.value,
            show_default=True,
            help="auto is console on a terminal, else json.",
        ),
        click.option(
            "--ops-host",
            default="0.0.0.0",  # noqa: S104 - the kubelet asks from outside the pod
            show_default=True,
            help="Address of /livez, /readyz and /metrics.",
        ),
        click.option(
            "--ops-port",
            type=click.IntRange(0, 65535),
            default=9090,
            show_default=True,
            help="Port of /livez, /readyz and /metrics; 0 takes a free one, which the log names.",
        ),
    ):
        command = option(command)
    return command
