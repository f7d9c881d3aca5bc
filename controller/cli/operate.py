"""`usersync operate`: the controller on a Kubernetes cluster.

Decides how options become settings; the rest is `reconciler.operator`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from controller.cli.options import clerk_url_options, cluster_options, process_options
from controller.cli.session import Session, debug_option
from controller.ops.logs import LogFormat, configure
from controller.reconciler.operator import OperateSettings
from controller.reconciler.operator import operate as run_operator

if TYPE_CHECKING:
    from controller.settings import ClerkURLs


@click.command()
@cluster_options
@process_options
@clerk_url_options
@debug_option
def operate(  # noqa: PLR0913 - one parameter for each option
    *,
    namespace: str | None,
    all_namespaces: bool,
    kubeconfig: str | None,
    context: str | None,
    ops_host: str,
    ops_port: int,
    log_format: str,
    log_level: str,
    urls: ClerkURLs,
) -> None:
    """Run the controller: keep every UserSync of a namespace, or of the cluster, reconciled.

    Connects as the pod's service account, else by --kubeconfig, $KUBECONFIG or ~/.kube/config. Ends on SIGTERM
    after the runs under way, or after 45 s.
    """
    if (namespace is not None) == all_namespaces:
        message = "Give either --namespace NAME or --all-namespaces."
        raise click.UsageError(message)
    debug = click.get_current_context().ensure_object(Session).debug
    configure(LogFormat(log_format), "debug" if debug else log_level)
    settings = OperateSettings(
        namespace=namespace, ops_host=ops_host, ops_port=ops_port, urls=urls, kubeconfig=kubeconfig, context=context
    )
    try:
        asyncio.run(run_operator(settings))
    except OSError as error:
        message = f"Cannot listen on port {ops_port}: {error.strerror or error}"
        raise click.ClickException(message) from error
