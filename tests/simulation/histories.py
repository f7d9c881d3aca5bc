"""What may happen: a history is a seed, a beginning, and one thing after the other.

Plain values, so that a history prints as the program that plays it again. Users are named by a number, taken modulo
the number of those it can mean.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING

from tests.simulation.crashes import Fate

if TYPE_CHECKING:
    from tests.simulation.clerk import Lie

CONTROLLERS = ("a", "b", "cli")
"""Two controllers and a command line."""
REPLICAS = ("w1", "w2")
"""Two replicas of the webhook service."""
PROCESSES = (*CONTROLLERS, *REPLICAS)


@dataclass(frozen=True)
class SignUp:
    """A user signs up; his message arrives after each of `arrives` seconds (never, if there is none)."""

    arrives: tuple[float, ...] = (0.0,)
    rows: int = 1
    profile: bool = False


@dataclass(frozen=True)
class Leave:
    """A user is deleted in Clerk."""

    who: int = 0
    arrives: tuple[float, ...] = (0.0,)


@dataclass(frozen=True)
class Request:
    """A user asks for his own deletion, and again after each of `again` seconds.

    `arrives`: the message of his deletion, if it is he whom that deletes in Clerk.
    """

    who: int = 0
    again: tuple[float, ...] = ()
    arrives: tuple[float, ...] = (0.0,)


@dataclass(frozen=True)
class Edit:
    """A user is edited in Clerk. `second`: within the same millisecond once more, with a message that arrives so.

    `mapped`: what is edited is in a mapped column; else only the version is another.
    """

    who: int = 0
    arrives: tuple[float, ...] = (0.0,)
    second: tuple[float, ...] | None = None
    mapped: bool = True


@dataclass(frozen=True)
class Tell:
    """A message about a user, true or not: `user.created` of one who is gone, `user.deleted` of one who lives.

    It describes the user as he was so many edits `back`; `bare`: not as Clerk does. `doubtful`: its times are odd.
    """

    who: int = 0
    type: str = "user.deleted"
    arrives: tuple[float, ...] = (0.0,)
    back: int = 0
    bare: bool = False
    doubtful: bool = False


@dataclass(frozen=True)
class Write:
    """The application writes a row of a user who lives, or whose token is still valid; `again`: a second profile."""

    who: int = 0
    table: int = 1


@dataclass(frozen=True)
class WriteForeign:
    """A row whose user id is not of Clerk's form, or NULL."""

    value: str | None = "system"
    table: int = 0


@dataclass(frozen=True)
class Deceive:
    """Clerk begins to lie (None: it stops) about these users."""

    lie: Lie | None = None
    about: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """A run begins, unless the process is at one."""

    by: str = "a"


@dataclass(frozen=True)
class Poll:
    """A replica looks for claims."""

    by: str = "w1"


@dataclass(frozen=True)
class Disturb:
    """Something lies in wait for a process, so many steps ahead."""

    process: str = "a"
    fate: Fate = Fate.KILL_BEFORE
    steps: int = 0
    commits: bool = False
    stall: float = 0.0


@dataclass(frozen=True)
class Jump:
    """The clock of the database jumps."""

    seconds: float = 0.0


@dataclass(frozen=True)
class Skew:
    """The wall clock of a process is wrong from now on."""

    process: str = "a"
    seconds: float = 0.0


@dataclass(frozen=True)
class Approve:
    """A person approves the set that was held back last, the one before, and so on; beyond: one that never was."""

    back: int = 0


@dataclass(frozen=True)
class Configure:
    """The resource is changed."""

    suspend: bool = False
    dry_run: bool = False
    policy: str = "Archive"
    actions: str = "FullSync"
    on_deleted: str = "Immediate"
    on_created: str = "CreateProfile"


Event = (
    SignUp
    | Leave
    | Request
    | Edit
    | Tell
    | Write
    | WriteForeign
    | Deceive
    | Sweep
    | Poll
    | Disturb
    | Jump
    | Skew
    | Approve
    | Configure
)


@dataclass(frozen=True)
class Step:
    """An event, so many seconds after the one before."""

    after: float
    event: Event


@dataclass(frozen=True)
class Beginning:
    """Who has rows at the start, and how the resource is written."""

    living: int = 4
    gone: int = 0
    missing: int = 0
    duplicates: int = 0
    unique: bool = False
    indexed: bool = True
    grace_hours: float = 24
    interval_hours: float = 1
    limit_users: int = 5
    policy: str = "Archive"
    batches: bool = False
    """Whether more than two rows are too many for one transaction."""
    maps: bool = False
    """Whether columns of the profile table are mapped."""
    on_deleted: str = "Immediate"
    holdback_hours: float = 24


@dataclass(frozen=True)
class History:
    """`seed` decides the turns of the processes, and everything else that chance does."""

    seed: int
    beginning: Beginning
    steps: tuple[Step, ...]


def program(history: History) -> str:
    """Return the program that plays a history again."""
    lines = (
        "from tests.simulation.clerk import Lie",
        "from tests.simulation.crashes import Fate",
        "from tests.simulation.histories import *",
        "from tests.simulation.playing import replay",
        "",
        f"replay({_code(history)})",
    )
    return "\n".join(lines)


def _code(value: object) -> str:
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, tuple):
        return f"({''.join(f'{_code(each)}, ' for each in value)})"
    if is_dataclass(value) and not isinstance(value, type):
        given = ", ".join(f"{field.name}={_code(getattr(value, field.name))}" for field in fields(value))
        return f"{type(value).__name__}({given})"
    return repr(value)
