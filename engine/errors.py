"""The engine's exceptions::

EngineError
├── RequestError                 the request is invalid; carries the name of the field at fault
│   └── ContextLengthError       prompt (plus the tokens asked for) does not fit the model's context
├── UnsatisfiableError           no answer satisfies the rules or the grammar; found during generation
├── OverloadedError              the waiting queue is full; try again later
├── ModelVersionError            the answer to resume was begun by another version of the model
└── EngineDeadError              the engine has ended; it can serve nothing
"""

from __future__ import annotations


class EngineError(Exception):
    """Base class of the engine's exceptions."""


class RequestError(EngineError):
    """The request is invalid. ``param`` is the name of the field at fault in the OpenAI API, ``code`` the API's error
    code."""

    def __init__(self, message: str, param: str, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.param, self.code)


class ContextLengthError(RequestError):
    """The prompt, or the prompt and ``max_tokens`` together, exceed the model's context length.

    ``prompt_tokens`` is the number of tokens of the prompt, or a lower bound of it; None if it is not known.
    """

    def __init__(
        self, message: str, param: str, code: str = "context_length_exceeded", prompt_tokens: int | None = None
    ) -> None:
        super().__init__(message, param, code)
        self.prompt_tokens = prompt_tokens

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.param, self.code, self.prompt_tokens)


class OverloadedError(EngineError):
    """The waiting queue is full. ``retry_after_s`` estimates how many seconds one more request would have waited, from
    the recent rate of admissions."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.retry_after_s)


class UnsatisfiableError(EngineError):
    """No token sequence satisfies the request's rules or grammar after the tokens generated so far."""


class ModelVersionError(EngineError):
    """The answer to resume was begun by another version of the model, or with other settings of the engine."""


class EngineDeadError(EngineError):
    """The engine has ended and cannot be restarted in this process."""
