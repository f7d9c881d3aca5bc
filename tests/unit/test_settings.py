from __future__ import annotations

import pytest

from controller.errors import ClerkURLNotAllowed, InsecureClerkURL, InvalidSpec
from controller.settings import ClerkURLs, Credentials


@pytest.mark.parametrize(
    "api_url",
    ["https://api.clerk.com", "https://api.clerk.com/", "https://api.clerk.com/v1", "https://api.clerk.com/v1/"],
)
def test_a_trailing_slash_or_version_is_taken_off(api_url: str) -> None:
    assert ClerkURLs().check(api_url) == "https://api.clerk.com"


def test_http_is_refused_with_the_way_to_allow_it() -> None:
    with pytest.raises(InsecureClerkURL, match="--allow-insecure-clerk-url"):
        ClerkURLs(allowed=("http://clerk.test",)).check("http://clerk.test")


@pytest.mark.parametrize(
    "api_url",
    [
        "https://api.clerk.com.evil.test",
        "https://evil.test/https://api.clerk.com",
        "https://api.clerk.com@evil.test",
        "https://api.clerk.com:8443",
        "https://127.0.0.1",
    ],
)
def test_a_host_that_nobody_allowed_gets_no_key(api_url: str) -> None:
    with pytest.raises(ClerkURLNotAllowed, match="--clerk-url-allow"):
        ClerkURLs().check(api_url)


@pytest.mark.parametrize("api_url", ["http://127.0.0.1:4000", "http://localhost:4000", "http://[::1]:4000/v1"])
def test_allowing_insecure_urls_allows_loopback(api_url: str) -> None:
    assert ClerkURLs(allow_insecure=True).check(api_url) == api_url.removesuffix("/v1")


@pytest.mark.parametrize("api_url", ["http://10.0.0.1:4000", "http://evil.test", "http://127.0.0.1.evil.test"])
def test_allowing_insecure_urls_allows_nothing_beyond_loopback(api_url: str) -> None:
    with pytest.raises(ClerkURLNotAllowed):
        ClerkURLs(allow_insecure=True).check(api_url)


@pytest.mark.parametrize("key", ["pk_test_abc", "", "whsec_abc", " sk_test_abc"])
def test_a_key_that_is_not_a_secret_key_is_refused_unsaid(key: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        Credentials(key, "postgresql://localhost/app")
    assert not key or key not in str(refusal.value)


def test_the_repr_of_credentials_shows_no_secret() -> None:
    shown = repr(Credentials("sk_test_secret", "postgresql://app:password@localhost/app", ("whsec_secret",)))
    assert "secret" not in shown
    assert "password" not in shown
