"""What is known of an approval: its digest, and which client wrote it when."""

from __future__ import annotations

from typing import Any

from controller.core.targets import Approval
from controller.kube.approvals import approved_digest, read_approval

DIGEST = "ab" * 32
FIELDS: dict[str, Any] = {"f:metadata": {"f:annotations": {".": {}, "f:usersync.dev/approve-deletion": {}}}}


def resource(annotations: dict[str, str] | None, *managed: dict[str, Any]) -> dict[str, Any]:
    metadata = {"namespace": "app", "name": "production", "managedFields": list(managed)}
    return {"metadata": metadata | ({"annotations": annotations} if annotations is not None else {})}


def test_without_the_annotation_nothing_is_approved() -> None:
    for given in (None, {}, {"usersync.dev/reconcile-at": DIGEST}, {"usersync.dev/approve-deletion": ""}):
        assert approved_digest(resource(given)) is None
        assert read_approval(resource(given)) is None


def test_it_says_which_client_wrote_it_and_when() -> None:
    other = {"manager": "helm", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {}}}
    annotate = {"manager": "kubectl-annotate", "time": "2026-11-24T12:00:00Z", "fieldsV1": FIELDS}
    approval = read_approval(resource({"usersync.dev/approve-deletion": f" {DIGEST}\n"}, other, annotate))
    given_by = "usersync.dev/approve-deletion on app/production, written by kubectl-annotate at 2026-11-24T12:00:00Z"
    assert approval == Approval(DIGEST, given_by)


def test_where_nobody_can_be_known_it_says_where_it_stands() -> None:
    approval = read_approval(resource({"usersync.dev/approve-deletion": DIGEST}))
    assert approval == Approval(DIGEST, "usersync.dev/approve-deletion on app/production")
