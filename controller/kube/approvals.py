"""The annotation by which a person permits a held-back set, and what is known of who gave it. Pure.

The API server keeps which client wrote a field and when, not which user; its audit log has that. Used by
`reconciler`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controller.core.targets import Approval
from controller.kube.fields import APPROVE_DELETION

if TYPE_CHECKING:
    from collections.abc import Mapping


def approved_digest(resource: Mapping[str, Any]) -> str | None:
    """Return the value of the annotation, or None if there is none."""
    value: str | None = (resource["metadata"].get("annotations") or {}).get(APPROVE_DELETION)
    return value.strip() if value else None


def read_approval(resource: Mapping[str, Any]) -> Approval | None:
    """Return the approval that a resource carries, if any."""
    digest = approved_digest(resource)
    if digest is None:
        return None
    metadata = resource["metadata"]
    where = f"{APPROVE_DELETION} on {metadata['namespace']}/{metadata['name']}"
    for entry in metadata.get("managedFields") or ():
        if _wrote_annotation(entry.get("fieldsV1")):
            return Approval(digest, f"{where}, written by {entry.get('manager', 'unknown')} at {entry.get('time')}")
    return Approval(digest, where)


def _wrote_annotation(fields: object) -> bool:
    for key in ("f:metadata", "f:annotations", f"f:{APPROVE_DELETION}"):
        if not isinstance(fields, dict) or key not in fields:
            return False
        fields = fields[key]
    return True
