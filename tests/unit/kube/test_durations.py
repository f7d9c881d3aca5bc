from __future__ import annotations

from datetime import timedelta

import pytest

from controller.kube.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("45s", timedelta(seconds=45)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("1h0m5s", timedelta(hours=1, seconds=5)),
        ("2d", timedelta(days=2)),
        ("90m", timedelta(minutes=90)),
    ],
)
def test_a_duration_is_read(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "1", "h", "1m1h", "1d2h", "0d", "-1h", "1.5h", "1 h", "1H", "1h\n", "٣h", "100000h"]
)
def test_another_form_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None
