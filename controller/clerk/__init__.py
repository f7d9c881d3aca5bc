"""The only client of Clerk's Backend API: listing, second look, look-ups.

`Clerk.open` is all that others use; it implements `controller.core.ports.Directory`.
"""

from controller.clerk.client import Clerk
from controller.clerk.transport import Patience

__all__ = ["Clerk", "Patience"]
