"""The API server, as far as usersync needs it: UserSyncs, their status, and the Secrets they name.

Decides how a status is written so that nobody's newer word is lost; never what it says. Reads only Secrets that a
resource names, in its own namespace. Used by `reconciler` and `web`.
"""

from __future__ import annotations

import base64
import binascii
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration, CoreV1Api, CustomObjectsApi, V1Secret

from controller.errors import CRDMissing, KubernetesRefused, KubernetesUnavailable, SecretNotFound
from controller.kube import secrets
from controller.kube.fields import API_VERSION, GROUP, KIND, PLURAL, VERSION, SecretKeyRef
from controller.kube.refusals import Conflict, Expired, NotFound, translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from controller.kube.specs import UserSync
    from controller.settings import Credentials

Resource = dict[str, Any]
"""A resource as the API server sends it."""

WRITE_ATTEMPTS = 5
FIELD_MANAGER = "usersync"
APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Calls:
    """How a single call is made.

    `timeout` in seconds; the client's own is 300, so one hanging connection would stop a resource for long.
    `page`: how many resources one page of a list holds.
    """

    timeout: float = 10.0
    page: int = 500


class Written(NamedTuple):
    """A status before and after it was written."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the API server is and how to be let in, for those who bring a client of their own."""

    server: str
    verify: bool
    ca_path: str | None
    certificate_path: str | None
    key_path: str | None
    proxy: str | None
    authorization: str | None = field(repr=False)
    """The header's value, such as `Bearer ...`; read afresh, for tokens of service accounts are replaced hourly."""


class ApiServer:
    """One API server and one identity; make one with `ApiServer.open`."""

    def __init__(self, client: ApiClient, configuration: Configuration, calls: Calls) -> None:
        self._configuration = configuration
        self.client = client
        self.calls = calls
        self._custom = CustomObjectsApi(client)
        self._core = CoreV1Api(client)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, *, kubeconfig: str | None = None, context: str | None = None, calls: Calls | None = None
    ) -> AsyncIterator[ApiServer]:
        """Connect as the pod's service account, or by a kubeconfig where one is named or there is no pod.

        Raises:
            KubernetesRefused: there is no usable configuration.
        """
        configuration = Configuration()
        await _configure(configuration, kubeconfig, context)
        client = ApiClient(configuration)
        try:
            yield cls(client, configuration, calls or Calls())
        finally:
            await client.close()  # type: ignore[no-untyped-call]  # the client is typed in part only

    async def connection(self) -> Connection:
        """Say how we are connected."""
        known = self._configuration
        return Connection(
            known.host,
            known.verify_ssl,
            known.ssl_ca_cert,
            known.cert_file,
            known.key_file,
            known.proxy,
            await known.get_api_key_with_prefix("BearerToken"),
        )

    async def get_user_sync(self, namespace: str, name: str) -> Resource | None:
        """Return the resource as it stands now, or None if there is none.

        Raises:
            KubernetesUnavailable: also while the kind is not served; a starting API server knows no CRD for a moment,
                and that must not look as if every resource was gone.
        """
        try:
            with translated(f"read {KIND} {namespace}/{name}"):
                resource = await self._custom.get_namespaced_custom_object(
                    GROUP, VERSION, namespace, PLURAL, name, _request_timeout=self.calls.timeout
                )
        except NotFound as error:
            if error.kind_served:
                return None
            message = (
                f"The Kubernetes API server does not serve {PLURAL} at the moment: its CRD is missing, or it starts."
            )
            raise KubernetesUnavailable(message) from error
        return cast("Resource", resource)

    async def list_user_syncs(self, namespace: str | None) -> tuple[list[Resource], str]:
        """Return all resources of a namespace, or of the cluster, and the version to watch from.

        Raises:
            CRDMissing: the API server does not know the kind.
        """
        resources: list[Resource] = []
        more = None
        while True:
            try:
                with translated(f"list {PLURAL}"):
                    page = await self._list_page(namespace, limit=self.calls.page, _continue=more)
            except NotFound as error:
                message = f"The CRD {PLURAL}.{GROUP} is not installed; apply crds/usersync.yaml."
                raise CRDMissing(message) from error
            except Expired as error:
                message = f"Could not list {PLURAL}: the list grew too old while it was read."
                raise KubernetesUnavailable(message) from error
            resources += page["items"]
            more = page["metadata"].get("continue")
            if not more:
                return resources, str(page["metadata"]["resourceVersion"])

    async def _list_page(self, namespace: str | None, **options: Any) -> Any:
        if namespace is None:
            return await self._custom.list_cluster_custom_object(
                GROUP, VERSION, PLURAL, _request_timeout=self.calls.timeout, **options
            )
        return await self._custom.list_namespaced_custom_object(
            GROUP, VERSION, namespace, PLURAL, _request_timeout=self.calls.timeout, **options
        )

    async def open_watch(self, namespace: str | None, version: str, *, seconds: int) -> Any:
        """Ask for the changes since `version`, for at most `seconds`; returns aiohttp's response."""
        options: dict[str, Any] = {
            "watch": True,
            "resource_version": version,
            "allow_watch_bookmarks": True,
            "timeout_seconds": seconds,
            "_request_timeout": float(seconds) + self.calls.timeout,
        }
        if namespace is None:
            return await self._custom.list_cluster_custom_object_without_preload_content(
                GROUP, VERSION, PLURAL, **options
            )
        return await self._custom.list_namespaced_custom_object_without_preload_content(
            GROUP, VERSION, namespace, PLURAL, **options
        )

    async def write_status(
        self, observed: Resource, build: Callable[[Mapping[str, Any]], dict[str, Any]]
    ) -> Written | None:
        """Replace the status of the very object that was observed by what `build` makes of its present one.

        `build` may be called again, when somebody else wrote meanwhile. Returns None if the object is gone, or is
        another one of the same name: the API server itself would not mind the wrong uid.

        Raises:
            KubernetesRefused: the schema does not take the status.
        """
        metadata = observed["metadata"]
        for _ in range(WRITE_ATTEMPTS):
            fresh = await self.get_user_sync(metadata["namespace"], metadata["name"])
            if fresh is None or fresh["metadata"]["uid"] != metadata["uid"]:
                return None
            before = fresh.get("status") or {}
            after = build(before)
            if after == before:
                return Written(before, after)
            try:
                await self._apply_status(fresh, after)
            except NotFound:
                return None
            except Conflict:
                continue
            return Written(before, after)
        message = (
            f"Could not write the status of {metadata['namespace']}/{metadata['name']}: it was changed "
            f"{WRITE_ATTEMPTS} times meanwhile."
        )
        raise KubernetesUnavailable(message)

    async def _apply_status(self, fresh: Resource, status: dict[str, Any]) -> None:
        metadata = fresh["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            # a recreated object has another version, and so never gets its predecessor's result
            "metadata": {"namespace": namespace, "name": name, "resourceVersion": metadata["resourceVersion"]},
            "status": status,
        }
        with translated(f"write the status of {KIND} {namespace}/{name}"):
            await self._custom.patch_namespaced_custom_object_status(
                GROUP,
                VERSION,
                namespace,
                PLURAL,
                name,
                body,
                field_manager=FIELD_MANAGER,
                force=True,
                _content_type=APPLY,
                _request_timeout=self.calls.timeout,
            )

    async def credentials(self, user_sync: UserSync, *, webhooks: bool = False) -> Credentials:
        """Read the Secrets that a resource names, each once; `webhooks`: those of its webhook endpoint too.

        Raises:
            SecretNotFound: a Secret or key is missing or empty; all that are missing are named.
            KubernetesRefused: we may not read one.
        """
        refs = user_sync.secrets
        wanted = {ref.name for ref in secrets.wanted_by(refs, webhooks=webhooks)}
        found = {name: await self._secret(user_sync.namespace, name) for name in sorted(wanted)}
        return secrets.resolve(refs, lambda ref: _value(user_sync.namespace, found[ref.name], ref), webhooks=webhooks)

    async def _secret(self, namespace: str, name: str) -> Mapping[str, bytes | str] | None:
        try:
            with translated(f"read Secret {namespace}/{name}"):
                secret: V1Secret = await self._core.read_namespaced_secret(
                    name, namespace, _request_timeout=self.calls.timeout
                )
        except NotFound:
            return None
        return secret.data or {}


def _value(namespace: str, content: Mapping[str, bytes | str] | None, ref: SecretKeyRef) -> str:
    where = f"Secret {namespace}/{ref.name}"
    if content is None:
        message = f"{where} does not exist; create it with the key {ref.key}."
        raise SecretNotFound(message)
    if ref.key not in content:
        keys = ", ".join(sorted(content)) or "none"
        message = f"{where} has no key {ref.key} (its keys: {keys}); add it, or correct the reference."
        raise SecretNotFound(message)
    try:
        text = secrets.as_text(base64.b64decode(content[ref.key]))
    except binascii.Error:
        text = None
    if text is None:
        message = f"{where} has nothing readable under the key {ref.key}: it is empty or not text; write it anew."
        raise SecretNotFound(message)
    return text


async def _configure(configuration: Configuration, kubeconfig: str | None, context: str | None) -> None:
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ
    if in_pod and kubeconfig is None and context is None:
        try:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]  # see above
        except config.ConfigException as error:
            message = f"The pod's service account cannot be used: {error}"
            raise KubernetesRefused(message) from error
        return
    path = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    try:
        await config.load_kube_config(  # type: ignore[no-untyped-call]  # see above
            config_file=path, context=context, client_configuration=configuration, persist_config=False
        )
    except (config.ConfigException, OSError, TypeError) as error:
        message = f"No usable Kubernetes configuration in {path}: {error} Set KUBECONFIG or --kubeconfig."
        raise KubernetesRefused(message) from error
