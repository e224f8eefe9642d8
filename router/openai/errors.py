"""Errors in OpenAI's shape, and what every error from below becomes.

::

    ApiError                          status, type, param, code: what the client gets
    ├── InvalidRequestError     400   a field is wrong; param names it
    ├── AuthenticationError     401   no key or a wrong one
    ├── NotFoundError           404   no such model or path
    ├── MethodError             405
    ├── TimedOutError           408   the request took longer than the router, or its own deadline, allows
    ├── BodyTooLargeError       413
    ├── OverloadError           429   try again later
    ├── ServerError             500   our fault
    └── UnavailableError        503   no replica can take it now
"""

from __future__ import annotations

import json
import math
from typing import ClassVar

from engine.api import EngineDeadError, OverloadedError, RequestError
from router.ports.tiers import BackendError, ReplicaLostError


class ApiError(Exception):
    """An error as the client sees it. ``retry_after_s`` becomes the header Retry-After."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"

    def __init__(
        self, message: str, code: str | None = None, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> bytes:
        """The JSON object ``{"error": {message, type, param, code}}``, all four keys always there."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers that belong to this error alone."""
        if self.retry_after_s is None:
            return []
        return [(b"retry-after", str(max(1, math.ceil(self.retry_after_s))).encode())]


class InvalidRequestError(ApiError):
    status = 400
    type = "invalid_request_error"


class AuthenticationError(InvalidRequestError):
    status = 401

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"www-authenticate", b"Bearer")]


class NotFoundError(InvalidRequestError):
    status = 404


class MethodError(InvalidRequestError):
    status = 405


class TimedOutError(ApiError):
    status = 408
    type = "timeout_error"


class BodyTooLargeError(InvalidRequestError):
    status = 413


class OverloadError(ApiError):
    status = 429
    type = "rate_limit_error"


class ServerError(ApiError):
    pass


class UnavailableError(ApiError):
    status = 503


def translate(error: Exception, prompt_field: str = "prompt") -> ApiError:
    """What the client is told of ``error``. ``prompt_field`` is what its format calls the prompt."""
    match error:
        case ApiError():
            return error
        case RequestError(message=message, param=param, code=code):
            return InvalidRequestError(message, code, prompt_field if param in ("prompt", "messages") else param)
        case OverloadedError(message=message, retry_after_s=retry_after_s):
            return OverloadError(message, "overloaded", retry_after_s=retry_after_s)
        case ReplicaLostError(message=message):
            return UnavailableError(message, "replica_lost", retry_after_s=1)
        case BackendError(message=message):
            return UnavailableError(message, "tier_unavailable", retry_after_s=5)
        case EngineDeadError():
            return UnavailableError("The model replica has stopped.", "replica_lost", retry_after_s=1)
        case TimeoutError():
            return TimedOutError("The request took longer than this service allows.", "request_timeout")
        case _:
            return ServerError("The server had an error while processing your request.", "internal_error")
