"""The answers of Clerk that are not 200: status, code, and the body they have in common.

Pure; the HTTP API turns a `Refusal` into an answer, and gives it its trace id.
"""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """A request that Clerk refuses; never leaves the emulator."""

    def __init__(self, status: int, code: str, message: str, *, long_message: str | None = None) -> None:
        """`long_message` is the message again if not given."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.long_message = message if long_message is None else long_message
        self.parameter: str | None = None
        self.retry_after: str | None = None

    def body(self, trace_id: str) -> dict[str, Any]:
        """Return the body, as `ClerkErrors` of Clerk's OpenAPI description."""
        error: dict[str, Any] = {
            "message": self.message,
            "long_message": self.long_message,
            "code": self.code,
        }
        if self.parameter is not None:
            error["meta"] = {"param_name": self.parameter}
        return {"errors": [error], "clerk_trace_id": trace_id}

    @classmethod
    def bad_parameter(cls, *, name: str, demand: str, code: str = "form_param_value_invalid") -> Refusal:
        """422: a parameter has a value that cannot be."""
        refusal = cls(422, code, "is invalid", long_message=f"{name} {demand}.")
        refusal.parameter = name
        return refusal

    @classmethod
    def not_emulated(cls, name: str) -> Refusal:
        """501, which Clerk never says: better than an answer that passes over what was asked."""
        return cls(501, "not_emulated", f"the emulator does not know the parameter {name}")

    @classmethod
    def user_not_found(cls, user_id: str) -> Refusal:
        """404: the user does not exist, or no more."""
        return cls(404, "resource_not_found", "not found", long_message=f"No user was found with id {user_id}.")

    @classmethod
    def unauthorized(cls, *, header_given: bool) -> Refusal:
        """401: no key, or the wrong one."""
        if header_given:
            return cls(
                401,
                "clerk_key_invalid",
                "The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct.",
            )
        return cls(
            401,
            "authorization_header_format_invalid",
            "Invalid Authorization header format",
            long_message='Invalid Authorization header format. Must be "Bearer <YOUR_API_KEY>"',
        )

    @classmethod
    def bad_version(cls) -> Refusal:
        """400: a version that never was, or two at once."""
        return cls(400, "api_version_invalid", "The API version is invalid.")

    @classmethod
    def too_many_requests(cls, retry_after: float | None) -> Refusal:
        """429, with `Retry-After` in whole seconds unless None."""
        refusal = cls(429, "too_many_requests", "Too many requests", long_message="Too many requests. Retry later.")
        if retry_after is not None:
            refusal.retry_after = str(int(retry_after))
        return refusal
