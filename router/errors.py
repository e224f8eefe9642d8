"""``RefusalError``: the errors that a client gets instead of an answer, independent of wire format and transport.

::

    RefusalError                    kind, message, field, code, retry_after_s
    ├── InvalidRequestError         a field is wrong; ``field`` names it
    │   ├── PromptTooLongError      it does not fit the context of its tier
    │   └── ContentFilteredError    the content policy does not allow the request
    ├── AuthenticationError         no key, or a wrong one
    ├── PermissionDeniedError       the key may not do this
    ├── NotFoundError               no such model or path
    ├── GoneError                   it existed, and its time is over
    ├── MethodNotAllowedError       the path exists, but not for this method
    ├── UnprocessableError          it contradicts an earlier request
    ├── ConflictError               the state of a thing does not allow the request now
    ├── DeadlineExceededError       the request took longer than the router, or its own deadline, allows
    ├── PayloadTooLargeError        the request has too many bytes
    ├── UnsupportedMediaTypeError   its body is in a form that the service does not read
    ├── RateLimitError              try again later
    │   ├── LimitExceededError      a limit of the key or the tenant is reached
    │   └── AdmissionRefusedError   the tier could not serve the request in time
    ├── InternalServerError         the service is at fault
    │   └── RequestGivenUpError     several replicas were lost while they ran the request
    └── UnavailableError            no replica can take the request now, or a store or model does not answer

The packages of the router raise these. The wire format makes an error body of one (``router/openai/errors.py``), the
transport a status code (``router/transport/http_exchange.py``), each by a table of kinds. ``refusal_of`` converts the
errors of the engine and of the tier backend.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from engine.api import ContextLengthError, EngineDeadError, OverloadedError, RequestError, UnsatisfiableError, Usage
from router.ports.limit_store import LimitDecision
from router.ports.tier_backend import (
    BackendError,
    ModelVersionError,
    PoisonRequestError,
    ReplicaDrainedError,
    ReplicaLostError,
    ReplicaOverloadedError,
    ReplicaVersionError,
    TierStartingError,
    TierUnavailableError,
)


class RefusalKind(StrEnum):
    """The kind of a refusal. Wire formats and transports have a table from it to their own error types."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    NOT_FOUND = "not_found"
    GONE = "gone"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    UNPROCESSABLE = "unprocessable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    RATE_LIMITED = "rate_limited"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"


SERVICE_FAULTS = frozenset(
    {RefusalKind.DEADLINE_EXCEEDED, RefusalKind.RATE_LIMITED, RefusalKind.INTERNAL, RefusalKind.UNAVAILABLE}
)
"""The kinds for which the service is to blame if a request ends so that was accepted: limits are checked before."""


class RefusalError(Exception):
    """An error for the client; the base of this family.

    ``message`` is for people. ``code`` is a stable identifier for programs. ``field`` is the request field at fault.
    ``retry_after_s`` is the time in seconds that a client should wait before it tries again. Each of the last three may
    be None. ``should_retry`` tells client libraries whether to retry by themselves; None: they decide, unless the
    request has generated tokens, which would be paid for again. ``safety`` is the guard's decision, if the guard
    refused the request. ``usage`` has the token counts of an answer that had begun; None: it had not. ``refused`` is
    the value of the header x-manta-refused, for a request that there is no room for; None: it has none.
    """

    kind: ClassVar[RefusalKind] = RefusalKind.INTERNAL
    should_retry: bool | None = None
    safety: str | None = None
    usage: Usage | None = None
    refused: str | None = None

    def __init__(
        self, message: str, code: str | None = None, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.field = field
        self.retry_after_s = retry_after_s


class InvalidRequestError(RefusalError):
    """A field of the request is wrong; ``field`` names it."""

    kind = RefusalKind.INVALID_REQUEST


class PromptTooLongError(InvalidRequestError):
    """The prompt does not fit the context of its tier. ``prompt_tokens`` is the number of its tokens as the engine has
    counted them, or a lower bound; None if it is not known."""

    prompt_tokens: int | None = None


class ContentFilteredError(InvalidRequestError):
    """The tenant's content policy refuses the request, or holds it until a person has decided."""


class AuthenticationError(RefusalError):
    """The request has no API key or token, or one that is not valid."""

    kind = RefusalKind.UNAUTHENTICATED


class PermissionDeniedError(RefusalError):
    """The API key does not permit the request."""

    kind = RefusalKind.PERMISSION_DENIED


class NotFoundError(RefusalError):
    """The model, the path or the named object does not exist, or is not visible to the API key."""

    kind = RefusalKind.NOT_FOUND


class GoneError(RefusalError):
    """The object of the request existed, and is deleted."""

    kind = RefusalKind.GONE


class MethodNotAllowedError(RefusalError):
    """The path exists, but not for this HTTP method."""

    kind = RefusalKind.METHOD_NOT_ALLOWED


class ConflictError(RefusalError):
    """The present state of an object does not allow the request, such as a review item that another person holds."""

    kind = RefusalKind.CONFLICT


class UnprocessableError(RefusalError):
    """The request contradicts an earlier one, such as another with the same idempotency key."""

    kind = RefusalKind.UNPROCESSABLE


class DeadlineExceededError(RefusalError):
    """The request took longer than its own deadline or the router's time limit."""

    kind = RefusalKind.DEADLINE_EXCEEDED


class PayloadTooLargeError(RefusalError):
    """The body of the request exceeds the limit."""

    kind = RefusalKind.PAYLOAD_TOO_LARGE


class UnsupportedMediaTypeError(RefusalError):
    """The body of the request is in a form that the service does not read, such as an unknown content coding."""

    kind = RefusalKind.UNSUPPORTED_MEDIA_TYPE


class RateLimitError(RefusalError):
    """The service or the tier is full, or a limit of the key or the tenant is reached. The client may try again
    later."""

    kind = RefusalKind.RATE_LIMITED


class LimitExceededError(RateLimitError):
    """A limit of the API key or of the tenant leaves no room for the request. ``decision`` has the state of all limits.
    ``retry_after_s`` is in seconds, None if waiting does not help. ``should_retry``: client libraries may retry by
    themselves."""

    def __init__(
        self, message: str, code: str, decision: LimitDecision, retry_after_s: float | None, *, should_retry: bool
    ) -> None:
        super().__init__(message, code, retry_after_s=retry_after_s)
        self.decision = decision
        self.should_retry = should_retry


class AdmissionRefusedError(RateLimitError):
    """The tier could not serve the request in time, or has no room for it. ``refused`` has the reason and the numbers
    behind it."""

    def __init__(self, message: str, refused: str, retry_after_s: float) -> None:
        super().__init__(message, "overloaded", retry_after_s=retry_after_s)
        self.refused = refused


class InternalServerError(RefusalError):
    """The service is at fault."""

    kind = RefusalKind.INTERNAL


class RequestGivenUpError(InternalServerError):
    """Replicas were lost while they ran the request. Client libraries do not send it again by themselves."""

    should_retry = False


class UnavailableError(RefusalError):
    """No replica of the tier can take the request now, or something else that the request needs does not answer, such
    as Redis, the embedder or the classifier."""

    kind = RefusalKind.UNAVAILABLE


def refusal_of(error: Exception, prompt_field: str = "prompt") -> RefusalError:
    """Returns ``error`` as a refusal. Errors of unknown types become InternalServerError, without their message.

    ``prompt_field`` is the name of the prompt's field in the wire format, for errors of the engine about the prompt.
    """
    match error:
        case RefusalError():
            return error
        case ContextLengthError(message=message, param=param, code=code, prompt_tokens=prompt_tokens):
            too_long = PromptTooLongError(message, code, prompt_field if param in ("prompt", "messages") else param)
            too_long.prompt_tokens = prompt_tokens
            return too_long
        case RequestError(message=message, param=param, code=code):
            return InvalidRequestError(message, code, prompt_field if param in ("prompt", "messages") else param)
        case UnsatisfiableError():
            return InvalidRequestError(str(error), "unsatisfiable")
        case (
            OverloadedError(message=message, retry_after_s=retry_after_s)
            | ReplicaOverloadedError(message=message, retry_after_s=retry_after_s)
        ):
            return _refused(RateLimitError(message, "overloaded", retry_after_s=retry_after_s), "replica_queue")
        case PoisonRequestError(message=message):
            return RequestGivenUpError(message, "poison_request")
        case ReplicaLostError(message=message) | ReplicaDrainedError(message=message):
            return UnavailableError(message, "replica_lost", retry_after_s=1)
        case ModelVersionError(message=message):
            return UnavailableError(message, "model_version_changed", retry_after_s=1)
        case ReplicaVersionError(message=message):
            return UnavailableError(message, "version_mismatch", retry_after_s=5)
        case TierStartingError(message=message, retry_after_s=retry_after_s):
            return _refused(UnavailableError(message, "tier_starting", retry_after_s=retry_after_s), "tier_starting")
        case TierUnavailableError(message=message):
            return _refused(UnavailableError(message, "tier_unavailable", retry_after_s=5), "no_capacity")
        case BackendError(message=message):
            return UnavailableError(message, "tier_unavailable", retry_after_s=5)
        case EngineDeadError():
            return UnavailableError("The model replica has stopped.", "replica_lost", retry_after_s=1)
        case TimeoutError():
            return DeadlineExceededError("The request took longer than this service allows.", "request_timeout")
        case _:
            return InternalServerError("The server had an error while processing your request.", "internal_error")


def _refused(refusal: RefusalError, reason: str) -> RefusalError:
    """Returns ``refusal`` with the header x-manta-refused."""
    refusal.refused = f"reason={reason}"
    return refusal
