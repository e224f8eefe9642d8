"""The usage of a request to /v1/collections in the ledger and the limits."""

from __future__ import annotations

from typing import NoReturn

from engine.api import SamplingParams
from router.answer_events import Stamp
from router.inference_request import InferenceRequest

RETRIEVAL = "retrieval"
"""Takes the place of the tier in the ledger. It costs a request and no tokens."""


def retrieval_request() -> InferenceRequest:
    """Returns a request by which ledger and limits count a collection request: one that generates no tokens."""
    return InferenceRequest(RETRIEVAL, (), SamplingParams(), "documents", _no_answer)


def _no_answer(stamp: Stamp) -> NoReturn:
    raise AssertionError("a collection has no answer to write")
