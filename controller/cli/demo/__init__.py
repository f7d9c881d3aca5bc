"""`usersync demo`: the whole story on a laptop, with a PostgreSQL server of its own and an emulated Clerk.

`local_postgres` starts the server; the tests use it too.
"""
