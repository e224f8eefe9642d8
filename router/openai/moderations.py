"""The endpoint /v1/moderations, as OpenAI defines it: its request model and its response."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from router.errors import NotFoundError
from router.openai.messages import TextPart, joined_text
from router.openai.validation import StrictModel, ValidText, parse
from safety.api import Moderation

MAX_INPUTS = 256  # texts of one request; each is classified by itself

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
"""The categories that every result has, whether the classifier knows them or not."""

OPENAI_MODELS = re.compile(r"(omni|text)-moderation-[a-z0-9.-]{1,32}")
"""Names of OpenAI's moderation models, which stand for the classifier of this service: clients need no change."""


def _input_tag(value: object) -> str:
    """Returns the union tag of ``input``, by the type of its first item if it is a list."""
    if not isinstance(value, list):
        return "<text>"
    return "<parts>" if value and isinstance(value[0], dict) else "<texts>"


Inputs = Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)


class ModerationRequest(StrictModel):
    """The JSON body of POST /v1/moderations. Several parts are one input, as in OpenAI's API; images are refused."""

    input: Annotated[
        Annotated[ValidText, Tag("<text>")]
        | Annotated[list[ValidText], Inputs, Tag("<texts>")]
        | Annotated[list[TextPart], Inputs, Tag("<parts>")],
        Discriminator(_input_tag),
    ]
    model: ValidText | None = None

    @property
    def texts(self) -> list[str]:
        """The texts to classify, each with a result of its own."""
        if isinstance(self.input, str):
            return [self.input]
        texts = [each for each in self.input if isinstance(each, str)]
        return texts or [joined_text([each for each in self.input if isinstance(each, TextPart)])]


def moderation_texts(body: bytes, model: str) -> list[str]:
    """Returns the texts in the request ``body``. ``model`` is the name of the classifier.

    Raises InvalidRequestError for a wrong field, and NotFoundError for a model that is neither the classifier nor one
    of OpenAI's, which stand for it.
    """
    request = parse(ModerationRequest, body)
    check_moderation_model(request.model, model)
    return request.texts


def check_moderation_model(name: str | None, model: str, field: str = "model") -> None:
    """Raises NotFoundError, which names ``field``, unless ``name`` is the classifier ``model`` or one of OpenAI's
    names, which stand for it. None is accepted."""
    if name is not None and name != model and not OPENAI_MODELS.fullmatch(name):
        shown = name.encode("ascii", "backslashreplace").decode()[:64]
        message = f"There is no moderation model '{shown}'. Available: {model}."
        raise NotFoundError(message, "model_not_found", field)


def moderation_body(answer_id: str, model: str, results: Sequence[Moderation]) -> str:
    """Returns the JSON body of the response. ``results`` has one item for each text, in order."""
    return json.dumps({"id": f"modr-{answer_id}", "model": model, "results": [result_fields(each) for each in results]})


def result_fields(result: Moderation) -> dict[str, Any]:
    """Returns OpenAI's moderation object. ``injection`` is an extension: OpenAI has no such category."""
    scores: Mapping[str, float] = dict.fromkeys(CATEGORIES, 0.0) | dict(result.scores)
    return {
        "flagged": bool(result.flagged),
        "categories": {name: name in result.flagged for name in scores},
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] if name in result.scores else [] for name in scores},
        "injection": {"flagged": result.injection_flagged, "score": result.injection},
    }
