"""What `usersync doctor` is given to look at: as much as there is, and what is missing in words.

Decides as `inputs` which variables and references count, and refuses nothing that it can describe instead. Used by
`doctor`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.cli.inputs import (
    CLERK_API,
    CLERK_SECRET_KEY,
    CLERK_WEBHOOK_SECRET,
    DATABASE_ADMIN_URL,
    DATABASE_URL,
    declared_in,
    front_end_variables,
    read_ca,
)
from controller.core.facts import Given, KeyForm
from controller.core.targets import ClerkSource, Spec
from controller.errors import InvalidSpec, SecretNotFound
from controller.runtime import Subject
from controller.settings import CLERK_API_URL, Access
from controller.web.signatures import Verifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from controller.kube.fields import SecretKeyRef
    from controller.kube.manifests import Declared


def read_subjects(manifest: str | None, environ: Mapping[str, str], name: str | None) -> list[tuple[Spec, Subject]]:
    """Read what there is to look at; `name` picks one of several.

    Raises:
        InvalidSpec: the manifest is not valid, or has no resource of that name.
    """
    if manifest is None:
        return [_of_environment(environ)]
    declared = [
        each
        for each in declared_in(manifest, environ)
        if name is None or name in {each.user_sync.name, each.user_sync.spec.name}
    ]
    if not declared:
        message = f"{manifest} has no UserSync of the name {name}."
        raise InvalidSpec(message)
    return [(each.user_sync.spec, _of_manifest(each)) for each in declared]


def _of_environment(environ: Mapping[str, str]) -> tuple[Spec, Subject]:
    values = {
        variable: environ.get(variable, "").strip()
        for variable in (CLERK_SECRET_KEY, CLERK_WEBHOOK_SECRET, DATABASE_URL, DATABASE_ADMIN_URL, CLERK_API)
    }
    missing = [f"{name} is not set." for name in (CLERK_SECRET_KEY, DATABASE_URL) if not values[name]]
    url = values[DATABASE_URL]
    front_end = [] if url else front_end_variables(environ)
    if url.startswith(("http://", "https://")):
        front_end, url = [DATABASE_URL], ""
    if front_end:
        missing = [each for each in missing if DATABASE_URL not in each]
    try:
        ca = read_ca(environ)
    except InvalidSpec as error:
        ca, url = None, ""
        missing.append(str(error))
    secrets = [values[CLERK_WEBHOOK_SECRET]] if values[CLERK_WEBHOOK_SECRET] else []
    access = Access(url, ca, values[DATABASE_ADMIN_URL] or None) if url else None
    given = _given(values[CLERK_SECRET_KEY], secrets, access, missing, front_end)
    spec = Spec("environment", clerk=ClerkSource(values[CLERK_API] or CLERK_API_URL))
    return spec, Subject(given, values[CLERK_SECRET_KEY] or None, access)


def _of_manifest(declared: Declared) -> Subject:
    refs = declared.user_sync.secrets
    missing: list[str] = []

    def look_up(ref: SecretKeyRef | None) -> str | None:
        try:
            return None if ref is None else declared.look_up(ref)
        except SecretNotFound as error:
            missing.append(str(error))
            return None

    key, url, ca, admin_url = map(look_up, (refs.clerk_key, refs.database_url, refs.database_ca, refs.admin_url))
    secrets = [secret for ref in refs.webhook_secrets if (secret := look_up(ref)) is not None]
    # Without its CA the server would be spoken to unverified.
    may_connect = url is not None and (ca is not None or refs.database_ca is None)
    access = Access(url, ca, admin_url) if url is not None and may_connect else None
    return Subject(_given(key, secrets, access, missing), key, access)


def _given(
    key: str | None,
    secrets: Sequence[str],
    access: Access | None,
    missing: Sequence[str],
    front_end: Sequence[str] = (),
) -> Given:
    return Given(
        key=KeyForm.of(key),
        missing=tuple(missing),
        front_end=tuple(front_end),
        webhook_secrets=len(secrets),
        webhook_problems=tuple(_problems(secrets)),
        has_admin=access is not None and access.admin_url is not None,
    )


def _problems(secrets: Sequence[str]) -> list[str]:
    problems = []
    for place, secret in enumerate(secrets, start=1):
        try:
            Verifier([secret])
        except InvalidSpec as error:
            which = f" (secret {place} of {len(secrets)})" if len(secrets) > 1 else ""
            problems.append(f"{error}{which}")
    return problems
