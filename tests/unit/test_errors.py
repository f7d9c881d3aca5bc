from __future__ import annotations

import inspect

from controller import errors


def _tree() -> list[type[errors.UserSyncError]]:
    return [
        value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, errors.UserSyncError)
    ]


def test_every_error_stands_in_the_drawn_tree() -> None:
    drawn = errors.__doc__ or ""
    assert [error.__name__ for error in _tree() if error.__name__ not in drawn] == []


def test_every_error_is_transient_or_permanent() -> None:
    bases = (errors.TransientError, errors.PermanentError)
    assert [error for error in _tree() if error is not errors.UserSyncError and not issubclass(error, bases)] == []


def test_a_reason_is_the_name_of_its_error() -> None:
    assert {error.__name__: error.reason for error in _tree() if error is not errors.UserSyncError} == {
        error.__name__: error.__name__ for error in _tree() if error is not errors.UserSyncError
    }
