"""Nothing is accepted that is not signed, and nothing that a stranger sends ends in an error of another kind."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import standardwebhooks.webhooks
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from controller.emulator.events import sign
from controller.errors import InvalidSpec
from controller.web.refusals import RefusalKind, Refused
from controller.web.signatures import Verifier
from tests.support.webhooks import is_signed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_plJ3nmyCDGBKInavdOK15jsl"
BODY = b'{"test": 2432232314}'
VECTOR = {
    "svix-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "svix-timestamp": "1614265330",
    "svix-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
"""Svix's own test vector (python/tests/test_webhooks.py of svix/svix-webhooks)."""


def headers_of(*parts: Mapping[str, str] | Iterable[tuple[str, str]]) -> CIMultiDictProxy[str]:
    headers = CIMultiDict[str]()
    for part in parts:
        headers.extend(part)
    return CIMultiDictProxy(headers)


def refused(headers: Mapping[str, str] | Iterable[tuple[str, str]], body: bytes = BODY, *secrets: str) -> RefusalKind:
    with pytest.raises(Refused) as caught:
        Verifier(secrets or (SECRET,)).verify(headers_of(headers), body)
    return caught.value.kind


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> type[StoppedTime]:
    """The clock of Svix's library, stopped at the time of the vectors."""
    monkeypatch.setattr(standardwebhooks.webhooks, "datetime", StoppedTime)
    StoppedTime.seconds = 1614265330
    return StoppedTime


class StoppedTime(datetime):
    seconds = 0

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # the one call that the library makes
        del tz
        return datetime.fromtimestamp(cls.seconds, UTC)


@pytest.mark.usefixtures("at")
class TestVectors:
    def test_svix_own_vector_is_accepted(self) -> None:
        assert Verifier([SECRET]).verify(headers_of(VECTOR), BODY) == "msg_p5jXN8AQM9LWM0D4loKWxJek"

    def test_the_vector_of_svix_manual_is_accepted(self, at: type[StoppedTime]) -> None:
        at.seconds = 1731705121
        headers = {
            "svix-id": "msg_loFOjxBNrRLzqYUf",
            "svix-timestamp": "1731705121",
            "svix-signature": "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
        }
        body = b'{"event_type":"ping","data":{"success":true}}'
        assert Verifier([OTHER_SECRET]).verify(headers_of(headers), body) == "msg_loFOjxBNrRLzqYUf"

    def test_a_signature_with_one_letter_changed_is_refused(self) -> None:
        changed = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA="
        assert refused(VECTOR | {"svix-signature": changed}) is RefusalKind.SIGNATURE

    def test_a_second_spelling_of_the_same_signature_is_refused(self) -> None:
        respelt = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OF="
        assert base64.b64decode(respelt[3:]) == base64.b64decode(VECTOR["svix-signature"][3:])
        assert refused(VECTOR | {"svix-signature": respelt}) is RefusalKind.MALFORMED_HEADER

    def test_the_right_signature_among_others_is_found(self) -> None:
        wrong = "Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
        longer = "hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZ"
        right = VECTOR["svix-signature"]
        several = f"v1,{wrong} v2,{wrong} v1a,{longer} {right} v1,{wrong}"
        assert Verifier([SECRET]).verify(headers_of(VECTOR | {"svix-signature": several}), BODY)

    def test_a_right_signature_under_another_version_counts_for_nothing(self) -> None:
        signature = VECTOR["svix-signature"].replace("v1,", "v2,")
        assert refused(VECTOR | {"svix-signature": signature}) is RefusalKind.SIGNATURE

    def test_white_labelled_headers_are_accepted(self) -> None:
        headers = {name.replace("svix", "webhook"): value for name, value in VECTOR.items()}
        assert Verifier([SECRET]).verify(headers_of(headers), BODY)

    def test_names_of_headers_are_read_in_any_case(self) -> None:
        assert Verifier([SECRET]).verify(headers_of({name.upper(): value for name, value in VECTOR.items()}), BODY)

    def test_the_two_families_are_not_mixed(self) -> None:
        mixed = {"svix-id": VECTOR["svix-id"]} | {
            f"webhook-{part}": VECTOR[f"svix-{part}"] for part in ("timestamp", "signature")
        }
        assert refused(mixed) is RefusalKind.MISSING_HEADER

    def test_one_header_of_svix_makes_the_white_labelled_ones_count_for_nothing(self) -> None:
        headers = {name.replace("svix", "webhook"): value for name, value in VECTOR.items()}
        assert refused(headers | {"svix-id": VECTOR["svix-id"]}) is RefusalKind.MISSING_HEADER

    def test_any_of_several_secrets_will_do(self) -> None:
        assert Verifier([OTHER_SECRET, SECRET]).verify(headers_of(VECTOR), BODY)

    def test_another_secret_is_refused(self) -> None:
        assert refused(VECTOR, BODY, OTHER_SECRET) is RefusalKind.SIGNATURE

    @pytest.mark.parametrize("seconds", [-301, 301])
    def test_a_message_more_than_five_minutes_away_is_refused(self, at: type[StoppedTime], seconds: int) -> None:
        at.seconds += seconds
        assert refused(VECTOR) is RefusalKind.TIMESTAMP

    @pytest.mark.parametrize("seconds", [-299, 299])
    def test_a_message_less_than_five_minutes_away_is_accepted(self, at: type[StoppedTime], seconds: int) -> None:
        at.seconds += seconds
        assert Verifier([SECRET]).verify(headers_of(VECTOR), BODY)

    @pytest.mark.parametrize(
        "timestamp",
        [
            *("1614265330.9", "+1614265330", "1_614265330", "01614265330", "1614265330 ", "1.61426533e9", "nan", "inf"),
            *("-1614265330", "١٦١٤٢٦٥٣٣٠", "0x6037", "99999999999999999999"),
        ],
    )
    def test_a_timestamp_that_is_not_a_plain_integer_is_refused(self, timestamp: str) -> None:
        assert refused(VECTOR | {"svix-timestamp": timestamp}) is RefusalKind.MALFORMED_HEADER

    def test_a_body_changed_by_one_space_is_refused(self) -> None:
        assert refused(VECTOR, BODY + b" ") is RefusalKind.SIGNATURE

    @pytest.mark.parametrize("name", sorted(VECTOR))
    def test_a_missing_header_is_refused(self, name: str) -> None:
        rest = {key: value for key, value in VECTOR.items() if key != name}
        assert refused(rest) is RefusalKind.MISSING_HEADER

    def test_without_any_header_the_one_that_clerk_sends_is_missed(self) -> None:
        with pytest.raises(Refused, match="svix-id is missing"):
            Verifier([SECRET]).verify(headers_of(), BODY)

    @pytest.mark.parametrize("name", sorted(VECTOR))
    def test_a_header_that_stands_twice_is_refused(self, name: str) -> None:
        assert refused([*VECTOR.items(), (name, VECTOR[name])]) is RefusalKind.MALFORMED_HEADER

    @pytest.mark.parametrize(
        "signature",
        [
            *("v1", "v1,", ",", "v1,a,b", "v1,====", "v1,@@@", "v1,é", "v1,\udcff", "", " ", "  ", "v1,AAAA"),
            *(f"{VECTOR['svix-signature']} ", f" {VECTOR['svix-signature']}", f"{VECTOR['svix-signature']}  v2,x"),
            *(f"{VECTOR['svix-signature']},", f"{VECTOR['svix-signature'][:20]}!{VECTOR['svix-signature'][20:]}"),
        ],
    )
    def test_a_malformed_signature_is_refused(self, signature: str) -> None:
        assert refused(VECTOR | {"svix-signature": signature}) is RefusalKind.MALFORMED_HEADER

    @pytest.mark.parametrize("message_id", ["", "a.1614265330", "msg é", "a b", "m" * 129, "\x00"])
    def test_a_malformed_id_is_refused(self, message_id: str) -> None:
        assert refused(VECTOR | {"svix-id": message_id}) is RefusalKind.MALFORMED_HEADER


def test_a_signed_body_that_is_not_utf8_is_refused_as_malformed() -> None:
    body = b'{"type": "\xff"}'
    assert refused(sign(SECRET, body), body) is RefusalKind.MALFORMED_BODY


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("", "does not begin with whsec_"),
        ("sk_test_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"),
        ("whsec_", "not base64"),
        ("whsec_====", "not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", "not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8I LPZIo2LaLaSw", "not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8I-LPZIo2LaLaSw", "not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwé", "not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwA", "not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8I", "too short: 15 bytes"),
        ("whsec_AAAA", "too short: 3 bytes"),
    ],
)
def test_a_secret_that_is_not_what_clerk_shows_is_refused_at_load(secret: str, said: str) -> None:
    with pytest.raises(InvalidSpec, match=said):
        Verifier([secret])


def test_the_refusal_of_a_secret_never_shows_it() -> None:
    with pytest.raises(InvalidSpec) as caught:
        Verifier([SECRET, "whsec_VerySecret!"])
    assert "VerySecret" not in str(caught.value)
    assert "2 of 2" in str(caught.value)


def test_no_secret_at_all_is_refused_at_load() -> None:
    with pytest.raises(InvalidSpec, match="no webhook secret"):
        Verifier([])


@pytest.mark.parametrize(
    "secret", ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwBr", SECRET + "=="]
)
def test_a_secret_is_accepted_padded_or_not(secret: str) -> None:
    assert Verifier([secret]).verify(headers_of(sign(secret, BODY)), BODY)


names = st.sampled_from(
    [f"{family}-{part}" for family in ("svix", "webhook") for part in ("id", "timestamp", "signature")]
)
values = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.just(str(int(time.time()))),
    st.binary(max_size=48).map(lambda raw: f"v1,{base64.b64encode(raw).decode()}"),
    st.lists(
        st.sampled_from(["v1,", "v1", "v2,", " ", ",", "A" * 43 + "=", "=", "é", "\udcff", "v1a,"]), max_size=6
    ).map("".join),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(names, values), max_size=8), st.binary(max_size=60), st.booleans(), st.data())
def test_whatever_is_accepted_is_signed_by_the_reference(
    noise: list[tuple[str, str]],
    body: bytes,
    signed: bool,  # noqa: FBT001 - drawn
    data: st.DataObject,
) -> None:
    genuine = list(sign(SECRET, body, message_id="msg_1").items()) if signed else []
    parts = data.draw(st.permutations([*genuine, *noise]))
    headers = headers_of(parts)
    try:
        Verifier([SECRET]).verify(headers, body)
    except Refused:
        return
    assert is_signed(SECRET, headers, body)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80).map(str.encode))
def test_whatever_clerk_signs_is_accepted(body: bytes) -> None:
    assert Verifier([SECRET]).verify(headers_of(sign(SECRET, body, message_id="msg_1")), body) == "msg_1"
