"""What the engine raises across its boundary::

EngineError
├── RequestError                 the request is at fault; carries the name of the field that is wrong
│   └── ContextLengthError       prompt (plus the tokens asked for) does not fit the model's context
├── UnsatisfiableError           what is asked of the answer cannot be had; found on the way
├── OverloadedError              the queue is full; try again later
└── EngineDeadError              the engine's thread has ended; nothing can be served
"""

from __future__ import annotations


class EngineError(Exception):
    """Root of what the engine raises across its boundary."""


class RequestError(EngineError):
    """The request itself is wrong. ``param`` names the field, in the words of the OpenAI API."""

    def __init__(self, message: str, param: str, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.param, self.code)


class ContextLengthError(RequestError):
    """The prompt, or the prompt and the tokens asked for, exceed the model's context."""


class OverloadedError(EngineError):
    """The waiting queue is full. ``retry_after_s`` estimates, from the rate at which requests were started of late, how
    long one more would have waited, in seconds."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.retry_after_s)


class UnsatisfiableError(EngineError):
    """What a request asks of its answer cannot be had with the tokens it has so far."""


class EngineDeadError(EngineError):
    """The engine's loop has ended and will not come back in this process."""
