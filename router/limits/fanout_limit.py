"""Limits on the number of prompts and answers of one request. Pure."""

from __future__ import annotations

from engine.api import MAX_CHOICES
from router.errors import InvalidRequestError
from router.inference_request import InferenceRequest


def check_answer_count(request: InferenceRequest, max_prompts: int) -> None:
    """Raises InvalidRequestError for more than ``max_prompts`` prompts, or for more than MAX_CHOICES answers in all.

    Each prompt counts ``best_of`` or ``n`` answers, or its beam width.
    """
    prompts, sampling = len(request.prompts), request.sampling
    if prompts > max_prompts:
        message = f"At most {max_prompts} prompts fit in one request, got {prompts}."
        raise InvalidRequestError(message, "too_many_prompts", request.prompt_field)
    answers = prompts * sampling.side_by_side
    if answers > MAX_CHOICES:
        message = f"At most {MAX_CHOICES} answers fit in one request, {answers} are asked for."
        field = "n" if sampling.n == sampling.side_by_side else "best_of"
        raise InvalidRequestError(message, "too_many_choices", field)
