"""`usersync operate`: the controller on a Kubernetes cluster.

Decides how flags become settings; the rest is `reconciler.operator`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from controller.cli.options import clerk_url_options, debug_option
from controller.ops.logs import LogFormat, configure
from controller.reconciler.operator import OperateSettings
from controller.reconciler.operator import operate as run_operator

if TYPE_CHECKING:
    from controller.settings import ClerkURLs


@click.command()
@click.option("-n", "--namespace", metavar="NAME", help="Serve the UserSyncs of this namespace only.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Serve the UserSyncs of the whole cluster.")
@click.option(
    "--ops-port",
    type=click.IntRange(0, 65535),
    default=9090,
    show_default=True,
    help="Port of /livez, /readyz and /metrics; 0 takes a free one, which the log names.",
)
@click.option("--kubeconfig", metavar="FILE", type=click.Path(dir_okay=False), help="Instead of $KUBECONFIG.")
@click.option("--context", metavar="NAME", help="Context of the kubeconfig.")
@click.option(
    "--log-format",
    type=click.Choice([kind.value for kind in LogFormat]),
    default=LogFormat.AUTO.value,
    show_default=True,
    help="auto is console on a terminal, else json.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
@clerk_url_options
@debug_option
def operate(  # noqa: PLR0913 - one parameter for each option
    *,
    namespace: str | None,
    all_namespaces: bool,
    ops_port: int,
    kubeconfig: str | None,
    context: str | None,
    log_format: str,
    log_level: str,
    urls: ClerkURLs,
) -> None:
    """Run the controller: keep every UserSync of a namespace, or of the cluster, reconciled.

    Connects as the pod's service account, else by --kubeconfig, $KUBECONFIG or ~/.kube/config. Ends on SIGTERM
    after the runs under way, or 45 s.
    """
    if (namespace is None) != all_namespaces:
        message = "Give either --namespace NAME or --all-namespaces."
        raise click.UsageError(message)
    configure(LogFormat(log_format), log_level)
    asyncio.run(
        run_operator(
            OperateSettings(namespace=namespace, ops_port=ops_port, urls=urls, kubeconfig=kubeconfig, context=context)
        )
    )
