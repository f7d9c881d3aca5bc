"""What Clerk tells by a webhook, and the message that it came in.

Holds no decision; made by `web`, given to `absorbing`, and recorded by the stores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.core.users import Profile, UserId


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message, whatever the number of attempts; `message_id` is Svix's id, constant over retries."""

    message_id: str
    event_type: str


@dataclass(frozen=True, slots=True)
class Event:
    """What a verified message tells. `user_id` is None if it names no user of Clerk's form.

    `doubtful`: its times are not those of something that has just happened (`core.doubting`). `profile`: where columns
    are mapped, and the message describes a user.
    """

    type: str
    instance_id: str
    user_id: UserId | None
    doubtful: bool = False
    profile: Profile | None = None
