"""The error for a request that the guard refuses. Pure."""

from __future__ import annotations

from router.errors import (
    ContentFilteredError,
    InvalidRequestError,
    PermissionDeniedError,
    RefusalError,
    UnavailableError,
)
from safety.api import TOO_MUCH_ENCODED, TOOLS, UNREADABLE, Action, Ruling


def check_ruling(ruling: Ruling) -> None:
    """Raises the RefusalError that ``refusal`` returns, unless the request is allowed or its refusal is sent as an
    answer."""
    if ruling.refused and not ruling.as_answer:
        raise refusal(ruling)


def refusal(ruling: Ruling) -> RefusalError:
    """Returns the error for a refused request. It names the field of the request, and quotes no text.

    As with Azure OpenAI, a blocked request has status 400 and the code ``content_filter``.
    """
    error = _error(ruling)
    error.safety = ruling.label
    error.should_retry = ruling.unavailable
    return error


def _error(ruling: Ruling) -> RefusalError:
    reason, field = ruling.reason, ruling.refused_field
    if ruling.unavailable:
        message = "The content of this request cannot be checked at the moment."
        return UnavailableError(message, "safety_unavailable", retry_after_s=1)
    if reason is not None and reason.error == UNREADABLE:
        message = f"Invalid '{field}': the content policy needs text, and token ids cannot be checked."
        return InvalidRequestError(message, "token_ids_not_allowed", field)
    if reason is not None and reason.error == TOO_MUCH_ENCODED:
        message = f"Invalid '{field}': the request has more encoded text than can be checked."
        return InvalidRequestError(message, "encoded_text_not_allowed", field)
    if reason is not None and reason.check == TOOLS:
        return PermissionDeniedError("This key may not use the tool.", "tool_not_allowed", field)
    code = "review_required" if ruling.action is Action.REVIEW else "content_filter"
    return ContentFilteredError(ruling.message, code, field)
