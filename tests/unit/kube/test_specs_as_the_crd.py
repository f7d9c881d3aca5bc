"""What the API server refuses of a UserSync, the reading of manifests refuses; what it accepts, too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from controller.errors import InvalidSpec
from controller.kube.manifests import read_manifest
from controller.kube.specs import read_user_sync
from tests.support.usersync_cases import BAD, GOOD, NOT_YET, Bad

if TYPE_CHECKING:
    from tests.support.usersyncs import UserSync

SAMPLE = Path(__file__).parents[3] / "deploy" / "sample" / "usersync.yaml"


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.what)
def test_what_the_api_server_refuses_is_refused_and_the_field_named(bad: Bad) -> None:
    with pytest.raises(InvalidSpec, match=re.escape(bad.field)):
        read_user_sync(bad.resource)


@pytest.mark.parametrize("good", GOOD, ids=lambda good: json.dumps(good["spec"])[:60])
def test_what_the_api_server_accepts_is_accepted(good: UserSync) -> None:
    assert read_user_sync(good).name == "production"


@pytest.mark.parametrize("resource", NOT_YET, ids=lambda resource: json.dumps(resource["spec"])[-60:])
def test_a_field_of_no_effect_is_refused(resource: UserSync) -> None:
    with pytest.raises(InvalidSpec, match="is not a field of this version"):
        read_user_sync(resource)


def test_the_sample_is_read_as_it_is() -> None:
    (declared,) = read_manifest(SAMPLE.read_text(), {}, origin=str(SAMPLE))
    credentials = declared.credentials(webhooks=True)
    assert (credentials.clerk_secret_key, credentials.webhook_secrets) == ("sk_test_REPLACE_ME", ("whsec_REPLACE_ME",))
