from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.postgres.queries import quoted
from tests.support.databases import connected

if TYPE_CHECKING:
    from controller.cli.demo.local_postgres import LocalPostgres

NAMES = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from("\"'\\${};- "), min_size=1
).filter(lambda name: len(name.encode()) <= 63)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(NAMES, min_size=1, max_size=20))
def test_the_server_reads_a_quoted_identifier_as_the_name_it_was(
    postgres_server: LocalPostgres, names: list[str]
) -> None:
    async def read() -> list[tuple[str, str]]:
        async with connected(postgres_server.url()) as connection:
            found = []
            for name in names:
                (row,) = await connection.fetch(f"SELECT quote_ident($1) AS {quoted(name)}", name)
                found.append((next(iter(row.keys())), row[0]))
            return found

    for name, (read_back, by_server) in zip(names, asyncio.run(read()), strict=True):
        assert read_back == name
        assert by_server in {name, quoted(name)}
