"""Where our schema names a user: searched in every table of it, and left there as runs and events leave it."""

from __future__ import annotations

from tests.support.databases import connected, execute

LEFTOVER = "11111111-1111-1111-1111-111111111111"
"""A run that was killed."""


async def tables_that_name(url: str, text: str) -> list[str]:
    """Every table and view of our schema with a row that has the text anywhere."""
    found = []
    async with connected(url) as connection:
        names = await connection.fetch(
            "SELECT relname::text AS name FROM pg_class WHERE relnamespace = 'usersync'::regnamespace "
            "AND relkind IN ('r', 'p', 'v', 'm')"
        )
        assert len(names) > 10
        for row in names:
            query = f"SELECT EXISTS (SELECT FROM usersync.{row['name']} AS t WHERE strpos(t::text, $1) > 0)"
            if await connection.fetchval(query, text):
                found.append(row["name"])
    return sorted(found)


async def leave_traces(url: str, user: str) -> None:
    """Put the user into every table of ours that can name one, as runs and events do."""
    await execute(
        url,
        f"INSERT INTO usersync.suspects VALUES ('public', '{user}', 'ins_test', 'epoch', now(), now())",
        f"INSERT INTO usersync.held_users VALUES ('public', '{user}', 1)",
        f"INSERT INTO usersync.versions VALUES ('public', '{user}', 5)",
        *(
            f"INSERT INTO usersync.claims (schema_name, user_id, kind) VALUES ('public', '{user}', '{kind}')"
            for kind in ("deletion", "second_sweep", "catch_up")
        ),
        "INSERT INTO usersync.runs (id, schema_name, resource, holder, instance_id, actions, dry_run) "
        f"VALUES ('{LEFTOVER}', 'public', 'killed', 'nobody', 'ins_test', '{{}}', false) ON CONFLICT DO NOTHING",
        f"INSERT INTO usersync.listed VALUES ('{LEFTOVER}', '{user}')",
        f"INSERT INTO usersync.drifted VALUES ('{LEFTOVER}', 'orphaned', '{user}')",
        f"INSERT INTO usersync.listed_values VALUES ('{LEFTOVER}', '{user}', 5, '{{=of a user}}')",
        f"INSERT INTO usersync.owed_values VALUES ('{LEFTOVER}', '{user}', 'missing', 5, '{{=of a user}}')",
        # What referred to a row of his, and his row that referred to somebody else's.
        *(
            "INSERT INTO usersync.links (schema_name, user_id, table_name, child_schema, child_table, constraint_name, "
            "primary_key, held, became, named) VALUES ('public', "
            f"'{owner}', 'tasks', 'public', 'likes', 'liked', '{{\"id\": \"{row}\"}}', '{{\"task\": \"1\"}}', "
            f"'{{\"task\": null}}', '{named}')"
            for owner, row, named in ((user, "1", "{}"), ("user_goneBefore", f"of {user}", f"{{{user}}}"))
        ),
        f"INSERT INTO usersync.places VALUES ('{LEFTOVER}', 'moods', '{user}', '(0,1)')",
    )
