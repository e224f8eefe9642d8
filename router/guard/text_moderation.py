"""Moderation of single texts, without a model's answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from engine.api import SamplingParams
from router.answer_events import Stamp
from router.errors import InvalidRequestError, NotFoundError, UnavailableError
from router.inference_request import InferenceRequest
from safety.api import ClassifierUnavailableError, Guard, Moderation, Subject, TextTooLongError

TIER = "moderation"
"""Takes the place of the tier in the ledger. Moderation costs a request and no tokens."""


def moderating(guard: Guard | None) -> Guard:
    """Returns ``guard``. Raises NotFoundError if the service has no classifier."""
    if guard is None or not guard.classifier:
        raise NotFoundError("This service has no classifier.", "moderation_not_configured")
    return guard


async def moderated(guard: Guard, subject: Subject, texts: Sequence[str]) -> Sequence[Moderation]:
    """Returns the classifier's result for each text, in order. Raises UnavailableError if the classifier does not
    answer, and InvalidRequestError for more characters than the tenant's policy allows."""
    try:
        return await guard.moderate(subject, texts)
    except TextTooLongError as error:
        field = "input" if len(texts) == 1 else f"input[{error.place}]"
        message = f"Invalid '{field}': the texts of a request may have at most {error.limit} characters."
        raise InvalidRequestError(message, "string_above_max_length", field) from None
    except ClassifierUnavailableError:
        message = "The classifier does not answer at the moment."
        raise UnavailableError(message, "safety_unavailable", retry_after_s=1) from None


def accounted_request(model: str) -> InferenceRequest:
    """Returns a request by which ledger and limits count a moderation: one that generates no tokens."""
    return InferenceRequest(model, (), SamplingParams(), "input", _no_answer)


def _no_answer(stamp: Stamp) -> NoReturn:
    raise AssertionError("a moderation has no answer to write")
