"""Refusals: every reason why a request gets an error instead of an answer, in no protocol's terms.

::

    RefusalError                    kind, message, field, code, retry_after_s
    ├── InvalidRequestError         a field is wrong; ``field`` names it
    ├── AuthenticationError         no key, or a wrong one
    ├── PermissionDeniedError       the key may not do this
    ├── NotFoundError               no such model or path
    ├── MethodNotAllowedError       the path exists, but not for this method
    ├── DeadlineExceededError       the request took longer than the router, or its own deadline, allows
    ├── PayloadTooLargeError        the request has too many bytes
    ├── RateLimitError              try again later
    ├── InternalServerError         our fault
    └── UnavailableError            no replica can take the request now

Rooms raise these. A format translates them into its error body (``router/openai/errors.py``), a transport into its own
status (``router/transport/http.py``): each has a table by kind. ``refusal_of`` brings the errors of the floors below
into this family.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from engine.api import EngineDeadError, OverloadedError, RequestError, UnsatisfiableError
from router.ports.tier_backend import BackendError, ReplicaLostError, ReplicaOverloadedError, ReplicaVersionError


class RefusalKind(StrEnum):
    """What went wrong, as far as a client has to act on it."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    RATE_LIMITED = "rate_limited"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"


class RefusalError(Exception):
    """An error for the client.

    ``code`` is a stable word for programs, ``field`` the request field at fault, ``retry_after_s`` the seconds after
    which another try may succeed.
    """

    kind: ClassVar[RefusalKind] = RefusalKind.INTERNAL

    def __init__(
        self, message: str, code: str | None = None, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.field = field
        self.retry_after_s = retry_after_s


class InvalidRequestError(RefusalError):
    kind = RefusalKind.INVALID_REQUEST


class AuthenticationError(RefusalError):
    kind = RefusalKind.UNAUTHENTICATED


class PermissionDeniedError(RefusalError):
    kind = RefusalKind.PERMISSION_DENIED


class NotFoundError(RefusalError):
    kind = RefusalKind.NOT_FOUND


class MethodNotAllowedError(RefusalError):
    kind = RefusalKind.METHOD_NOT_ALLOWED


class DeadlineExceededError(RefusalError):
    kind = RefusalKind.DEADLINE_EXCEEDED


class PayloadTooLargeError(RefusalError):
    kind = RefusalKind.PAYLOAD_TOO_LARGE


class RateLimitError(RefusalError):
    kind = RefusalKind.RATE_LIMITED


class InternalServerError(RefusalError):
    kind = RefusalKind.INTERNAL


class UnavailableError(RefusalError):
    kind = RefusalKind.UNAVAILABLE


def refusal_of(error: Exception, prompt_field: str = "prompt") -> RefusalError:
    """The refusal that ``error`` becomes. ``prompt_field`` is what the request's format calls the prompt."""
    match error:
        case RefusalError():
            return error
        case RequestError(message=message, param=param, code=code):
            return InvalidRequestError(message, code, prompt_field if param in ("prompt", "messages") else param)
        case UnsatisfiableError():
            return InvalidRequestError(str(error), "unsatisfiable")
        case OverloadedError(message=message, retry_after_s=retry_after_s):
            return RateLimitError(message, "overloaded", retry_after_s=retry_after_s)
        case ReplicaOverloadedError(message=message, retry_after_s=retry_after_s):
            return RateLimitError(message, "overloaded", retry_after_s=retry_after_s)
        case ReplicaLostError(message=message):
            return UnavailableError(message, "replica_lost", retry_after_s=1)
        case ReplicaVersionError(message=message):
            return UnavailableError(message, "version_mismatch", retry_after_s=5)
        case BackendError(message=message):
            return UnavailableError(message, "tier_unavailable", retry_after_s=5)
        case EngineDeadError():
            return UnavailableError("The model replica has stopped.", "replica_lost", retry_after_s=1)
        case TimeoutError():
            return DeadlineExceededError("The request took longer than this service allows.", "request_timeout")
        case _:
            return InternalServerError("The server had an error while processing your request.", "internal_error")
