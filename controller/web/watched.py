"""The resources of a cluster, as they change.

Decides how a resource becomes a declaration; a broken one is served too, by 503 and the reason, since its events
must not be lost while a person mends it. A module of its own: the Kubernetes client takes 120 MB, which a process that
serves files does not have to pay. Used by `app`, chosen by `cli`.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never

import structlog

from controller.core.targets import Spec
from controller.errors import InvalidSpec
from controller.kube.client import ApiServer
from controller.kube.specs import read_user_sync
from controller.kube.watching import ChangeKind, watch_user_syncs
from controller.web.keyring import Declaration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controller.settings import Credentials
    from controller.web.resources import Resources

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Watched:
    """`UserSync`s of a cluster, or of one `namespace`, as they change."""

    namespace: str | None
    kubeconfig: str | None = None
    context: str | None = None

    async def follow(self, resources: Resources) -> None:
        """Watch; an outage of the API server changes nothing of what is served.

        Raises:
            KubernetesRefused: there is no usable configuration.
        """
        async with (
            ApiServer.open(kubeconfig=self.kubeconfig, context=self.context) as api,
            aclosing(watch_user_syncs(api, self.namespace)) as changes,
        ):
            async for change in changes:
                match change.kind:
                    case ChangeKind.APPLIED:
                        _apply(api, change.resource, resources)
                    case ChangeKind.DELETED:
                        resources.remove(_name(change.resource))
                    case ChangeKind.SYNCED:
                        resources.listed = True
                    case _:
                        assert_never(change.kind)


def _apply(api: ApiServer, resource: Mapping[str, Any], resources: Resources) -> None:
    name = _name(resource)
    try:
        user_sync = read_user_sync(resource)
    except InvalidSpec as error:
        resources.apply(Declaration(Spec(name), str(error), partial(_refuse, str(error))))
        return
    if not user_sync.secrets.webhook_secrets:
        log.debug("without_webhook_secret", resource=name)
        resources.remove(name)
        return
    # the uid: one that was deleted and made anew while nobody watched may have other Secrets under the same names
    origin = (resource["metadata"]["uid"], user_sync.secrets)
    resources.apply(Declaration(user_sync.spec, origin, partial(api.credentials, user_sync, webhooks=True)))


def _name(resource: Mapping[str, Any]) -> str:
    return f"{resource['metadata']['namespace']}/{resource['metadata']['name']}"


async def _refuse(reason: str) -> Credentials:
    raise InvalidSpec(reason)
