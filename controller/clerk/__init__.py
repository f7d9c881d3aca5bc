"""The only client of Clerk's Backend API: listing, second look, look-ups.

`Clerk.open` is all that others use, and `profile_reader`, which reads events as it reads answers; it implements
`controller.core.ports.Directory`.
"""

from controller.clerk.client import Clerk
from controller.clerk.profiles import ProfileReader, profile_reader
from controller.clerk.transport import Patience

__all__ = ["Clerk", "Patience", "ProfileReader", "profile_reader"]
