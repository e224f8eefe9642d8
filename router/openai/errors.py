"""OpenAI's error object, made from a ``RefusalError``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engine.api import Usage
from router.errors import RefusalError, RefusalKind

ERROR_TYPE: Mapping[RefusalKind, str] = {
    RefusalKind.INVALID_REQUEST: "invalid_request_error",
    RefusalKind.UNAUTHENTICATED: "invalid_request_error",
    RefusalKind.PERMISSION_DENIED: "invalid_request_error",
    RefusalKind.NOT_FOUND: "invalid_request_error",
    RefusalKind.GONE: "invalid_request_error",
    RefusalKind.METHOD_NOT_ALLOWED: "invalid_request_error",
    RefusalKind.CONFLICT: "invalid_request_error",
    RefusalKind.UNPROCESSABLE: "invalid_request_error",
    RefusalKind.DEADLINE_EXCEEDED: "timeout_error",
    RefusalKind.PAYLOAD_TOO_LARGE: "invalid_request_error",
    RefusalKind.UNSUPPORTED_MEDIA_TYPE: "invalid_request_error",
    RefusalKind.RATE_LIMITED: "rate_limit_error",
    RefusalKind.INTERNAL: "server_error",
    RefusalKind.UNAVAILABLE: "server_error",
}
"""The member ``type`` of OpenAI's error object for each kind of refusal."""


def error_body(refusal: RefusalError) -> str:
    """Returns the JSON object ``{"error": {message, type, param, code}}``. All four members are always present. The
    error of an answer that had begun has OpenAI's ``usage`` beside it."""
    used = {} if refusal.usage is None else {"usage": token_counts(refusal.usage)}
    return json.dumps({"error": error_fields(refusal), **used})


def error_fields(refusal: RefusalError) -> dict[str, str | None]:
    """Returns the members of OpenAI's error object."""
    return {
        "message": refusal.message,
        "type": ERROR_TYPE[refusal.kind],
        "param": refusal.field,
        "code": refusal.code,
    }


def token_counts(usage: Usage) -> dict[str, Any]:
    """Returns the members of OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
