"""The docs are held to the code: what they name exists, and what must be explained is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from controller import errors
from controller.core.plans import HoldReason
from controller.core.securing import SecurityReason
from controller.web.metrics import Metrics
from tests.support import api_reference

ROOT = Path(__file__).parents[2]


def _reasons() -> set[str]:
    leaves = {
        error.reason
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.UserSyncError)
    }
    return leaves - {"Error", "TransientError", "PermanentError"}


def test_the_runbook_explains_every_reason() -> None:
    runbook = (ROOT / "docs/runbook.md").read_text()
    explained = set(re.findall(r"^\| `([A-Za-z]+)` \|", runbook, re.MULTILINE))
    assert explained == _reasons() | {reason.value for reason in (*HoldReason, *SecurityReason)}


def test_the_runbook_explains_every_metric_of_the_webhook_service() -> None:
    explained = set(re.findall(r"`(usersync_[a-z_]+)", (ROOT / "docs/runbook.md").read_text()))
    names = {f"{each.name}_total" if each.type == "counter" else each.name for each in Metrics().registry.collect()}
    assert names <= explained


def test_the_api_reference_is_that_of_the_crd() -> None:
    written = (ROOT / "docs/api.md").read_text()
    assert written == api_reference.render(yaml.safe_load(api_reference.CRD.read_text())), "run `make docs`"


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "deploy/kustomize/README.md",
        "deploy/sql/README.md",
        "docs/architecture.md",
        "docs/deletion.md",
        "docs/performance.md",
        "docs/runbook.md",
        "docs/security.md",
        "docs/webhooks.md",
    ],
)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\(((?!https?:)[^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_every_make_target_that_the_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^    (?:[A-Z]+=\S+ )?make ([a-z0-9-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named
    assert named <= targets


def test_every_test_that_the_page_on_deletion_names_exists() -> None:
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", (ROOT / "docs/deletion.md").read_text()))
    written = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"^ *(?:async )?def (test_[a-z0-9_]+)", path.read_text(), re.MULTILINE)
    }
    assert named
    assert named - written == set()
