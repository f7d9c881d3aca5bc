"""One server and one loop for all histories of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.simulation.playing import Player, player

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def playing() -> Iterator[Player]:
    """Who plays histories."""
    with player() as found:
        yield found
