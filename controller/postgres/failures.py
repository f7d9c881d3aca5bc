"""Errors of PostgreSQL and of the connection to it, in our own words; nowhere else are they translated.

Decides what may be tried again (the connection, locks, serialization) and what a person must mend. A message
never carries the server's DETAIL, nor the words of a trigger or a cast: those quote rows.
"""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import asyncpg

from controller.errors import (
    DatabaseRefused,
    DatabaseUnavailable,
    RoleSeesNotAll,
    SchemaMissing,
    TableUnsupported,
    UserSyncError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

RETRIED_STATES: Final = {
    "40001": "a serialization failure",
    "40P01": "a deadlock",
    "55P03": "a lock was not to be had in time",
}
"""The same transaction may go through the next time. In our words: a trigger that raises one may quote rows."""
UNAVAILABLE_STATES: Final = frozenset({"25006", "25P03", "25P04", "57014"})
"""A read-only server, a session that idled or a transaction that took too long, a statement cancelled."""
UNAVAILABLE_CLASSES: Final = frozenset({"08", "40", "53", "55", "57", "58"})
REFUSED_CLASSES: Final = frozenset({"28", "3D"})
REMEDIES: Final = {
    "25006": "It is a standby or set to read-only, as Supabase does with a full disk: give the URL of the primary, or "
    "make room",
    "53100": "Make room on its disk",
    "53300": "Raise max_connections, or connect through the pooler",
    "53400": "Raise the limit that it names for our role",
}
"""What a person can do, or should know, about some of them."""
HELD_CLASSES: Final = frozenset({"09", "21", "22", "23", "27", "2F", "38", "39", "44", "54", "P0"})
"""Constraints, triggers, functions, casts, values too long: what one row can run into while others do not."""
SERVER_CLASSES: Final = (
    HELD_CLASSES
    | UNAVAILABLE_CLASSES
    | REFUSED_CLASSES
    | {"00", "01", "02", "03", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "24", "25", "26", "2B", "2D", "34"}
    | {"3B", "3F", "42", "72", "F0", "HV", "XX"}
)
"""Those that PostgreSQL raises by itself; any other, such as the PT403 of PostgREST, is of a trigger's own."""

OTHER_HOST: Final = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL."""
UNKNOWN_ISSUER: Final = frozenset({2, 7, 18, 19, 20, 21})
"""Issuer not found, signature that is not the issuer's, self-signed, a chain that does not end at the CA."""

MIGRATE_HINT: Final = (
    "Run: usersync migrate (or give the output of usersync migrate --print to somebody who may create schemas)."
)


class ContendedTransaction(DatabaseUnavailable):
    """The transaction lost against another one and may be tried again as a whole; retried in this package."""


class RowsHeld(DatabaseRefused):
    """A constraint, trigger or cast refused some row; caught in this package where single users are left."""

    def __init__(
        self, message: str, *, column: str | None = None, state: str = "", constraint: str | None = None
    ) -> None:
        """`column` is named where one is NULL that may not be; `state` is the server's SQLSTATE, if it spoke."""
        super().__init__(message)
        self.column = column
        self.state = state
        self.constraint = constraint


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn what asyncpg raises in the block into errors of ours; `where` is the database, for people."""
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _of_server(error, where) from error
    except ssl.SSLCertVerificationError as error:
        raise DatabaseRefused(_of_certificate(error, where)) from error
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        # The end of a transaction on a dead connection hides what the server said last.
        if isinstance(error.__context__, asyncpg.PostgresError):
            raise _of_server(error.__context__, where) from error
        raise _of_connection(error, where) from error


def _of_certificate(error: ssl.SSLCertVerificationError, where: str) -> str:
    head = f"The certificate of {where} could not be verified"
    if error.verify_code in OTHER_HOST:
        return (
            f"{head}: it is for another host name ({error.verify_message.rstrip('.')}). Write the host into the "
            "database URL as the certificate has it; if none can be reached, sslmode=verify-ca leaves the name out."
        )
    if error.verify_code in UNKNOWN_ISSUER:
        return (
            f"{head}: it is not of the given CA ({error.verify_message.rstrip('.')}). Take the CA from whoever runs "
            "the server (database.caSecretRef, DATABASE_CA, or sslrootcert in the URL); if it is the right one, "
            "somebody else answers there."
        )
    return f"{head}: {error.verify_message.rstrip('.')}. Have the server's certificate renewed."


def _of_connection(error: Exception, where: str) -> UserSyncError:
    if isinstance(error, TimeoutError):
        return DatabaseUnavailable(f"{where} did not answer in time. Check host, port and firewall.")
    if "rejected SSL upgrade" in str(error):
        return DatabaseRefused(f"{where} offers no TLS, which a CA, or sslmode in the database URL, demands.")
    if isinstance(error, asyncpg.ClientConfigurationError):
        return DatabaseRefused(f"The TLS parameters of the database URL of {where} cannot be used: {error}")
    if isinstance(error, asyncpg.InterfaceError):
        return DatabaseUnavailable(
            f"The connection to {where} was lost in the middle of a transaction: the server was restarted, or has "
            "ended our session. What was not committed is undone."
        )
    return DatabaseUnavailable(
        f"{where} cannot be reached: {_first_line(error) or type(error).__name__}. Check host and port in the database "
        "URL, and that the server runs."
    )


def _of_server(error: asyncpg.PostgresError, where: str) -> UserSyncError:
    state = error.sqlstate or "XX000"
    said = _first_line(error)
    if "statement pooling mode" in said:
        return DatabaseRefused(
            f"{where} is behind a pooler in statement mode, which permits no transaction. Use its transaction mode, or "
            "connect directly."
        )
    if state in RETRIED_STATES:
        return ContendedTransaction(
            f"{where}: {RETRIED_STATES[state]}; other transactions hold what ours needs, and did so each time it was "
            "tried. Look for long ones in pg_stat_activity."
        )
    if (state in UNAVAILABLE_STATES or state[:2] in UNAVAILABLE_CLASSES) and not _is_of_trigger(error, state):
        remedy = f" {REMEDIES[state]}." if state in REMEDIES else ""
        return DatabaseUnavailable(f"{where} cannot serve us at the moment: {said}.{remedy}")
    if "row-level security policy" in said and "would be affected" in said:
        return RoleSeesNotAll(
            f"Row-level security hides rows of {where} from our role ({said}). Use a role that owns the tables or has "
            "BYPASSRLS (on Supabase: postgres)."
        )
    if state[:2] in REFUSED_CLASSES or "Tenant or user not found" in said:
        return DatabaseRefused(f"{where} refuses the connection: {said}. Check user, password and database.")
    return _of_statement(error, state, where)


def _of_statement(error: asyncpg.PostgresError, state: str, where: str) -> UserSyncError:
    said = _first_line(error)
    if state[:2] in HELD_CLASSES or state == "0A000" or _is_of_trigger(error, state):
        return _of_rows(error, state, where)
    if state == "42501":
        return DatabaseRefused(f"{where}: {said}. Grant our role what it lacks.")
    if state in {"42P01", "42703", "3F000", "42883"}:
        if "usersync" in said:
            return SchemaMissing(f"The schema usersync of {where} is missing or damaged ({said}). {MIGRATE_HINT}")
        return TableUnsupported(f"{where}: {said}. The tables have changed since they were inspected, or are not ours.")
    return DatabaseRefused(f"{where} answers with an error: {said} (SQLSTATE {state}).")


def _is_of_trigger(error: asyncpg.PostgresError, state: str) -> bool:
    """Whether a function of the application has raised it, by a state of its own or one that it has borrowed.

    What is raised inside of a function has a context. "Not permitted" and "not in the right state" are what triggers
    say of one row; with these states the server means us, and all rows.
    """
    borrowed = state == "42501" or state[:2] == "55"
    return state[:2] not in SERVER_CLASSES or (borrowed and error.context is not None)


def _of_rows(error: asyncpg.PostgresError, state: str, where: str) -> RowsHeld:
    what = error.constraint_name or error.column_name or f"SQLSTATE {state}"
    table = f" of table {error.table_name}" if error.table_name else ""
    return RowsHeld(
        f"{where} refuses a change of rows: {what}{table} (a constraint, or a trigger of the application).",
        column=error.column_name if state == "23502" else None,
        state=state,
        constraint=error.constraint_name,
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else ""
