"""Builds UserSync resources as a person would write them, for tests that apply them."""

from __future__ import annotations

from typing import Any

UserSync = dict[str, Any]


def usersync(name: str = "production", **spec: Any) -> UserSync:
    """A UserSync with only what is required, and `spec` over it; None takes a field out."""
    given = {
        "clerk": {"secretKeyRef": {"name": "clerk", "key": "CLERK_SECRET_KEY"}},
        "database": {"urlSecretRef": {"name": "supabase", "key": "DATABASE_URL"}},
    } | spec
    return {
        "apiVersion": "usersync.dev/v1alpha1",
        "kind": "UserSync",
        "metadata": {"name": name},
        "spec": {field: value for field, value in given.items() if value is not None},
    }


def clerk(**fields: Any) -> dict[str, Any]:
    """`spec.clerk` with only what is required, and `fields` over it."""
    return {"secretKeyRef": {"name": "clerk", "key": "CLERK_SECRET_KEY"}} | fields


def database(**fields: Any) -> dict[str, Any]:
    """`spec.database` with only what is required, and `fields` over it."""
    return {"urlSecretRef": {"name": "supabase", "key": "DATABASE_URL"}} | fields


def tables(*names: str) -> list[dict[str, Any]]:
    """Tables of these names; the first is the Profile table."""
    return [{"name": name, **({"role": "Profile"} if index == 0 else {})} for index, name in enumerate(names)]
