from __future__ import annotations

import asyncpg
import pytest

from controller.errors import (
    DatabaseRefused,
    DatabaseUnavailable,
    RoleSeesNotAll,
    SchemaMissing,
    TableUnsupported,
    UserSyncError,
)
from controller.postgres.failures import ContendedTransaction, RowsHeld, translated

SERVER = asyncpg.exceptions


def translate(error: Exception) -> UserSyncError:
    with pytest.raises(UserSyncError) as caught, translated("db.example:5432/app"):
        raise error
    assert caught.value.__cause__ is error
    return caught.value


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(111, "Connect call failed"), DatabaseUnavailable),
        (TimeoutError(), DatabaseUnavailable),
        (OSError("no route to host"), DatabaseUnavailable),
        (asyncpg.InterfaceError("connection is closed"), DatabaseUnavailable),
        (SERVER.ConnectionDoesNotExistError("closed in the middle"), DatabaseUnavailable),
        (SERVER.AdminShutdownError("terminating connection"), DatabaseUnavailable),
        (SERVER.CannotConnectNowError("the database system is starting up"), DatabaseUnavailable),
        (SERVER.TooManyConnectionsError("sorry, too many clients already"), DatabaseUnavailable),
        (SERVER.DiskFullError("could not extend file"), DatabaseUnavailable),
        (SERVER.ReadOnlySQLTransactionError("cannot execute INSERT in a read-only transaction"), DatabaseUnavailable),
        (SERVER.QueryCanceledError("canceling statement due to statement timeout"), DatabaseUnavailable),
        (SERVER.ConfigurationLimitExceededError("temporary file size exceeds temp_file_limit"), DatabaseUnavailable),
        (SERVER.PostgresIOError("could not read block 0"), DatabaseUnavailable),
        (SERVER.IdleInTransactionSessionTimeoutError("terminating connection"), DatabaseUnavailable),
        (SERVER.SerializationError("could not serialize access"), ContendedTransaction),
        (SERVER.DeadlockDetectedError("deadlock detected"), ContendedTransaction),
        (SERVER.LockNotAvailableError("canceling statement due to lock timeout"), ContendedTransaction),
        (SERVER.InvalidPasswordError('password authentication failed for user "me"'), DatabaseRefused),
        (SERVER.InvalidAuthorizationSpecificationError('role "me" does not exist'), DatabaseRefused),
        (SERVER.InvalidCatalogNameError('database "app" does not exist'), DatabaseRefused),
        (SERVER.InternalServerError("Tenant or user not found"), DatabaseRefused),
        (SERVER.InsufficientPrivilegeError("permission denied for table tasks"), DatabaseRefused),
        (
            SERVER.InsufficientPrivilegeError('query would be affected by row-level security policy for table "tasks"'),
            RoleSeesNotAll,
        ),
        (SERVER.UndefinedTableError('relation "usersync.locks" does not exist'), SchemaMissing),
        (SERVER.InvalidSchemaNameError('schema "usersync" does not exist'), SchemaMissing),
        (SERVER.UndefinedTableError('relation "public.tasks" does not exist'), TableUnsupported),
        (SERVER.UndefinedColumnError('column "user_id" does not exist'), TableUnsupported),
        (SERVER.ForeignKeyViolationError("violates foreign key constraint"), RowsHeld),
        (SERVER.RaiseError("not this one"), RowsHeld),
        (SERVER.PostgresSyntaxError("syntax error"), DatabaseRefused),
    ],
)
def test_an_error_of_the_server_gets_our_word(error: Exception, expected: type[UserSyncError]) -> None:
    assert type(translate(error)) is expected


def test_the_message_names_the_database() -> None:
    assert "db.example:5432/app" in str(translate(ConnectionRefusedError(111, "Connect call failed")))


@pytest.mark.parametrize(
    "error",
    [
        SERVER.RaiseError("user_2abc is protected"),
        SERVER.InvalidTextRepresentationError('invalid input syntax for type uuid: "user_2abc"'),
    ],
)
def test_the_words_of_a_trigger_or_a_cast_are_not_repeated(error: Exception) -> None:
    assert "user_2abc" not in str(translate(error))


def test_our_own_errors_pass_through() -> None:
    missing = SchemaMissing("none")
    with pytest.raises(SchemaMissing) as caught, translated("db"):
        raise missing
    assert caught.value is missing
