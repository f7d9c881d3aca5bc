"""Which sign-ups are looked up before they create anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from controller.core.doubting import DOUBT_AFTER, is_doubtful
from controller.emulator.events import example

if TYPE_CHECKING:
    from typing import Any

NOW = datetime(2026, 5, 12, 12, tzinfo=UTC)
MOMENT = timedelta(seconds=1)


def milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


@pytest.mark.parametrize("ago", [timedelta(), MOMENT, DOUBT_AFTER, -DOUBT_AFTER])
@pytest.mark.parametrize("unit", [1, 1000], ids=["seconds", "milliseconds"])
def test_a_sign_up_of_the_last_minutes_is_believed_in_either_unit(ago: timedelta, unit: int) -> None:
    told = NOW - ago
    assert not is_doubtful(int(told.timestamp() * unit), milliseconds(told), NOW)


@pytest.mark.parametrize("off", [DOUBT_AFTER + MOMENT, -DOUBT_AFTER - MOMENT, timedelta(days=60)])
def test_an_event_of_another_time_is_doubted(off: timedelta) -> None:
    told = NOW - off
    assert is_doubtful(milliseconds(told), milliseconds(told), NOW)


@pytest.mark.parametrize("off", [DOUBT_AFTER + MOMENT, -DOUBT_AFTER - MOMENT, timedelta(days=900)])
def test_a_user_created_at_another_time_than_the_event_tells_is_doubted(off: timedelta) -> None:
    assert is_doubtful(milliseconds(NOW), milliseconds(NOW - off), NOW)


@pytest.mark.parametrize("odd", [None, "", "1654012591835", True, [], {}, 1e300, -1e300, 10**400, float("nan"), -1])
def test_a_time_that_is_none_is_doubted_and_no_error(odd: Any) -> None:
    assert is_doubtful(odd, milliseconds(NOW), NOW)
    assert is_doubtful(milliseconds(NOW), odd, NOW)


def test_the_example_of_clerks_dashboard_is_doubted() -> None:
    event = example("user.created", "ins_x")
    assert is_doubtful(event["timestamp"], event["data"]["created_at"], NOW)
