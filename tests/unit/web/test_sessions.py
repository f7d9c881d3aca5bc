"""A token ends an account only if Clerk signed it for that user, just now, on a page that the resource names."""

from __future__ import annotations

import base64
import hmac
import json
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from controller.core.targets import AccountDeletion
from controller.web.refusals import RefusalKind, Refused
from controller.web.sessions import NotReverified, Session, instance_of, minutes_of, read_session
from tests.support.fakes.directory import INSTANCE, user
from tests.support.sessions import ORIGIN, OTHER_INSTANCE, OTHER_ORIGIN, keys_of, sessions, token

USER = user(1)
TERMS = AccountDeletion(enabled=True, authorized_parties=(ORIGIN, OTHER_ORIGIN))
HEADER = {"kid": INSTANCE.id, "typ": "JWT"}


def read(text: str, terms: AccountDeletion = TERMS) -> Session:
    """Read a token as the service does: whose it says it is, and whether it is."""
    instance_id = instance_of(text)
    assert instance_id == INSTANCE.id
    return read_session(text, INSTANCE.id, keys_of(sessions()), terms)


def refused(text: str, terms: AccountDeletion = TERMS) -> tuple[RefusalKind, int]:
    with pytest.raises(Refused) as caught:
        read(text, terms)
    return caught.value.kind, caught.value.status.value


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def claims(**changed: Any) -> dict[str, Any]:
    return sessions().claims(USER, ORIGIN, **changed)


def with_claim(claim: str, value: object) -> str:
    changed: Any = {claim: value}
    return token(USER, **changed)


def signed(header: dict[str, Any], key: Any = None, algorithm: str = "RS256") -> str:
    return jwt.encode(claims(), key or sessions().key, algorithm=algorithm, headers=header)


def test_a_session_token_names_its_user_and_his_page() -> None:
    assert read(token(USER)) == Session(USER, ORIGIN)
    assert read(token(USER, OTHER_ORIGIN)) == Session(USER, OTHER_ORIGIN)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None])
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_without_a_signature_it_is_refused(algorithm: str | None, signature: str) -> None:
    text = f"{encoded(HEADER | {'alg': algorithm})}.{encoded(claims())}.{signature}"
    assert refused(text) == (RefusalKind.NOT_A_SESSION, 401)


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_signed_with_the_public_key_as_a_secret_it_is_refused(encoding: Encoding) -> None:
    secret = sessions().public_key.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    for algorithm, digest in (("HS256", "sha256"), ("RS256", "sha256"), ("HS512", "sha512")):
        text = f"{encoded(HEADER | {'alg': algorithm})}.{encoded(claims())}"
        mac = base64.urlsafe_b64encode(hmac.digest(secret, text.encode(), digest)).rstrip(b"=").decode()
        kind, status = refused(f"{text}.{mac}")
        assert (kind, status) in {(RefusalKind.NOT_A_SESSION, 401), (RefusalKind.SIGNATURE, 401)}


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
def test_signed_by_another_algorithm_of_the_same_key_it_is_refused(algorithm: str) -> None:
    assert refused(signed(HEADER, algorithm=algorithm)) == (RefusalKind.NOT_A_SESSION, 401)


def test_signed_on_an_elliptic_curve_it_is_refused() -> None:
    key = generate_ec_key(SECP256R1())
    assert refused(signed(HEADER, key, "ES256")) == (RefusalKind.NOT_A_SESSION, 401)


def test_with_the_key_of_another_instance_under_our_name_it_is_refused() -> None:
    assert refused(signed(HEADER, sessions(OTHER_INSTANCE).key)) == (RefusalKind.SIGNATURE, 401)


def test_a_key_that_is_named_beside_ours_is_never_used() -> None:
    other = sessions(OTHER_INSTANCE)
    text = signed(HEADER, other.key)
    with pytest.raises(Refused) as caught:
        read_session(text, INSTANCE.id, keys_of(sessions(), other), TERMS)
    assert caught.value.kind is RefusalKind.SIGNATURE


def test_a_key_that_comes_with_the_token_is_never_used() -> None:
    other = sessions(OTHER_INSTANCE)
    for header in (
        {"jwk": other.key_set()["keys"][0]},
        {"jku": "https://attacker.example.com/jwks.json"},
        {"x5u": "https://attacker.example.com/key.pem"},
    ):
        assert refused(signed(HEADER | header, other.key)) == (RefusalKind.SIGNATURE, 401)


def test_of_two_keys_of_the_instance_either_will_do() -> None:
    newer = sessions(number=1)
    for each in (sessions(), newer):
        text = each.token(USER, ORIGIN)
        assert read_session(text, INSTANCE.id, keys_of(newer, sessions()), TERMS).user_id == USER


@pytest.mark.parametrize("kid", [None, "", "ins_", "ins_a/../b", "default", 7, ["ins_a"], "ins_a\n"])
def test_without_the_name_of_an_instance_it_is_refused(kid: object) -> None:
    text = f"{encoded({'alg': 'RS256', 'typ': 'JWT', 'kid': kid})}.{encoded(claims())}.AAAA"
    assert refused(text) == (RefusalKind.NOT_A_SESSION, 401)


@pytest.mark.parametrize("typ", ["at+jwt", "JWE", "", None])
def test_a_token_of_another_type_is_refused(typ: str | None) -> None:
    header = {"alg": "RS256", "kid": INSTANCE.id, "typ": typ}
    assert refused(f"{encoded(header)}.{encoded(claims())}.AAAA") == (RefusalKind.NOT_A_SESSION, 401)


@pytest.mark.parametrize("extension", ["b64", "exp", "x"])
def test_with_an_extension_that_must_be_understood_it_is_refused(extension: str) -> None:
    header = HEADER | {"alg": "RS256", "crit": [extension], extension: False}
    text = f"{encoded(header)}.{encoded(claims())}"
    signature = sessions().key.sign(text.encode(), PKCS1v15(), SHA256())
    signed_text = f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    assert refused(signed_text) == (RefusalKind.NOT_A_SESSION, 401)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS384", "ES256", "EdDSA", None])
def test_of_another_algorithm_it_costs_no_look_at_a_key(algorithm: str | None) -> None:
    with pytest.raises(Refused) as caught:
        instance_of(f"{encoded(HEADER | {'alg': algorithm})}.{encoded(claims())}.AAAA")
    assert caught.value.kind is RefusalKind.NOT_A_SESSION


@pytest.mark.parametrize("prefix", ["ak_", "oat_", "m2m_", "mt_", "sk_test_"])
def test_a_machines_token_is_refused(prefix: str) -> None:
    assert refused(f"{prefix}2abcDEF0123456789") == (RefusalKind.MACHINE, 401)


def test_a_machines_token_in_the_form_of_a_jwt_is_refused() -> None:
    assert refused(token("mch_2abc")) == (RefusalKind.NOT_A_SESSION, 401)


def test_an_access_token_for_an_oauth_application_is_refused() -> None:
    header = HEADER | {"typ": "at+jwt"}
    assert refused(signed(header)) == (RefusalKind.NOT_A_SESSION, 401)


def test_a_token_of_a_jwt_template_which_has_no_session_is_refused() -> None:
    assert refused(token(USER, sid=None)) == (RefusalKind.NOT_A_SESSION, 401)


@pytest.mark.parametrize("sid", ["", "sess_", "client_2abc", 7, None])
def test_a_session_that_is_none_is_refused(sid: object) -> None:
    assert refused(token(USER, sid=sid)) == (RefusalKind.NOT_A_SESSION, 401)


@pytest.mark.parametrize("sub", ["", "user_", "user_a b", "system", "user_a/../user_b", 7, None])
def test_who_is_no_user_of_clerks_form_is_refused(sub: object) -> None:
    assert refused(token(USER, sub=sub)) == (RefusalKind.NOT_A_SESSION, 401)


def test_an_expired_token_is_refused_five_seconds_later() -> None:
    assert read(token(USER, exp=int(time.time()) - 1)).user_id == USER
    assert refused(token(USER, exp=int(time.time()) - 7)) == (RefusalKind.EXPIRED, 401)


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_token_of_the_future_is_refused_from_five_seconds_on(claim: str) -> None:
    assert read(with_claim(claim, int(time.time()) + 3)).user_id == USER
    assert refused(with_claim(claim, int(time.time()) + 30)) == (RefusalKind.TIMESTAMP, 401)


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat", "iss"])
def test_a_token_that_leaves_out_what_every_one_has_is_refused(claim: str) -> None:
    assert refused(with_claim(claim, None)) == (RefusalKind.NOT_A_SESSION, 401)


@pytest.mark.parametrize("value", ["soon", [], {}, True, 1e400])
def test_a_time_that_is_none_is_refused(value: object) -> None:
    kind, status = refused(token(USER, exp=value))
    assert kind in {RefusalKind.NOT_A_SESSION, RefusalKind.EXPIRED}
    assert status == 401


def test_another_issuer_is_refused_where_one_is_named() -> None:
    named = replace(TERMS, issuer=sessions().issuer)
    assert read(token(USER), named).user_id == USER
    for issuer in ("https://clerk.attacker.example.com", sessions().issuer + "/", ""):
        assert refused(token(USER, iss=issuer), named) == (RefusalKind.ISSUER, 401)


def test_without_a_page_it_is_refused() -> None:
    assert refused(token(USER, azp=None)) == (RefusalKind.NOT_A_SESSION, 401)


@pytest.mark.parametrize(
    "azp", ["https://attacker.example.com", ORIGIN + "/", ORIGIN.upper(), "", "null", [ORIGIN], {"a": ORIGIN}, 7]
)
def test_a_foreign_page_is_refused(azp: object) -> None:
    assert refused(token(USER, azp=azp)) == (RefusalKind.AUTHORIZED_PARTY, 403)


@pytest.mark.parametrize("status", ["pending", "expired", "", 7])
def test_a_session_that_owes_something_is_refused(status: object) -> None:
    assert refused(token(USER, sts=status)) == (RefusalKind.PENDING_SESSION, 403)


def test_a_session_without_a_status_is_active_as_it_was_before_there_were_any() -> None:
    assert read(token(USER, sts=None)).user_id == USER


@pytest.mark.parametrize("actor", [{"sub": "user_2admin", "iss": "https://dashboard.clerk.com"}, {}, "user_2admin"])
def test_an_impersonated_user_is_refused(actor: object) -> None:
    assert refused(token(USER, act=actor)) == (RefusalKind.IMPERSONATED, 403)


@pytest.mark.parametrize("ages", [[0, -1], [9, -1], [0, 0], [9, 9], [500, 0], [500, 9]])
def test_the_second_factor_decides_and_without_one_the_first(ages: list[int]) -> None:
    assert read(token(USER, fva=ages)).user_id == USER


@pytest.mark.parametrize(
    "ages",
    [[10, -1], [500, -1], [0, 10], [0, 500], [-1, -1], [0, -2], [-5, -1], None, [], [0], [0, 0, 0], ["0", "0"],
     [True, True], [0.5, -1], "0,-1", {"0": 0}],
)  # fmt: skip
def test_a_user_who_has_not_proved_who_he_is_lately_is_asked_to(ages: object) -> None:
    with pytest.raises(NotReverified) as caught:
        read(token(USER, fva=ages))
    assert (caught.value.status, caught.value.within) == (403, timedelta(minutes=10))


@pytest.mark.parametrize("ages", [[500, -1], [0, 500], None])
def test_with_zero_nobody_is_asked_to(ages: object) -> None:
    assert read(token(USER, fva=ages), replace(TERMS, reverify_within=timedelta())).user_id == USER


def test_an_impersonator_is_not_asked_to_prove_that_he_is_the_user() -> None:
    assert refused(token(USER, act={"sub": "user_2admin"}, fva=[500, -1]))[0] is RefusalKind.IMPERSONATED


@pytest.mark.parametrize(("seconds", "minutes"), [(1, 1), (60, 1), (61, 2), (600, 10), (86400, 1440)])
def test_ages_are_counted_in_minutes_begun(seconds: int, minutes: int) -> None:
    assert minutes_of(timedelta(seconds=seconds)) == minutes


def test_an_audience_of_the_applications_own_does_not_matter() -> None:
    assert read(token(USER, aud="supabase")).user_id == USER


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "é.é.é", "\udce9.\udcff.a", "\0", "[" * 8000, "eyJ" * 2000])
def test_what_is_no_token_is_refused(text: str) -> None:
    assert refused(text) == (RefusalKind.NOT_A_SESSION, 401)


def test_a_header_that_is_nested_without_end_is_refused() -> None:
    deep = base64.urlsafe_b64encode(b"[" * 6000).rstrip(b"=").decode()
    assert refused(f"{deep}.e30.AAAA") == (RefusalKind.NOT_A_SESSION, 401)


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=200), st.integers(0, 600))
def test_a_changed_token_is_refused_whatever_was_changed(replacement: str, place: int) -> None:
    text = token(USER)
    place %= len(text)
    changed = text[:place] + replacement + text[place + len(replacement) :]
    if _means_the_same(changed, text):
        return
    with pytest.raises(Refused):
        read_session(changed, instance_of(changed), keys_of(sessions()), TERMS)


def _means_the_same(changed: str, text: str) -> bool:
    """Whether only bits differ that base64 does not count."""
    try:
        parts = [[base64.urlsafe_b64decode(part + "==") for part in each.split(".")] for each in (changed, text)]
    except ValueError:
        return False
    return parts[0] == parts[1]


def test_who_serves_no_account_deletion_does_not_load_what_verifies_tokens() -> None:
    code = "import sys, controller.cli.serve; print(sorted({'jwt', 'cryptography'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.strip() == "[]"
