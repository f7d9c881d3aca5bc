"""The conditions of a UserSync, read as kstatus reads them. Pure.

Decides when a transition has happened: a condition keeps its time while its status stays. Used by `statuses`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MESSAGE_MAX = 1024
"""Far below the schema's limit: a status is read by people and is sent to every watcher."""


class ConditionType(Enum):
    """The conditions, in the order in which they stand in the status."""

    READY = "Ready"
    """The last run did its work."""
    RECONCILING = "Reconciling"
    """A generation or a request is unhandled, or a failure is being retried."""
    STALLED = "Stalled"
    """A person must act."""
    IN_SYNC = "InSync"
    DELETION_BLOCKED = "DeletionBlocked"
    ROW_LEVEL_SECURITY = "RowLevelSecurity"
    """The listed tables let signed-in users at their own rows alone."""


class State(Enum):
    """The three states that the API knows."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"

    @classmethod
    def of(cls, value: bool) -> State:  # noqa: FBT001 - it converts just this
        """Return the state of a known answer."""
        return cls.TRUE if value else cls.FALSE


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition as it is to be."""

    type: ConditionType
    state: State
    reason: str
    message: str


def merge(
    before: Sequence[Mapping[str, Any]], wanted: Sequence[Condition], *, generation: int, now: str
) -> list[dict[str, Any]]:
    """Return all conditions: the wanted ones, and those of `before` that are not named, unchanged."""
    old = {condition["type"]: condition for condition in before}
    new = {condition.type.value: condition for condition in wanted}
    merged: list[dict[str, Any]] = []
    for kind in [kind.value for kind in ConditionType]:
        if kind in new:
            merged.append(_written(new[kind], old.get(kind), generation, now))
        elif kind in old:
            merged.append(dict(old[kind]))
    return merged


def _written(condition: Condition, old: Mapping[str, Any] | None, generation: int, now: str) -> dict[str, Any]:
    same = old is not None and old["status"] == condition.state.value
    return {
        "type": condition.type.value,
        "status": condition.state.value,
        "observedGeneration": generation,
        "lastTransitionTime": old["lastTransitionTime"] if same and old else now,
        "reason": condition.reason,
        "message": cut(condition.message),
    }


def find(status: Mapping[str, Any], kind: ConditionType) -> tuple[str, str, str] | None:
    """Return status, reason and message of a condition, or None if it is not there."""
    for condition in status.get("conditions", ()):
        if condition["type"] == kind.value:
            return condition["status"], condition["reason"], condition["message"]
    return None


def cut(message: str) -> str:
    """Keep a message within bounds."""
    return message if len(message) <= MESSAGE_MAX else message[: MESSAGE_MAX - 3] + "..."
