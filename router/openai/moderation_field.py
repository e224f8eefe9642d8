"""The member ``moderation`` of requests and responses, as OpenAI defines it."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from router.moderation_scores import ModerationResults, ModerationSettings
from router.openai.moderations import check_moderation_model, result_fields
from router.openai.validation import StrictModel, ValidText


class ModerationMode(StrictModel):
    """The mode of inline moderation: flagged text is only scored, or blocked."""

    mode: Literal["score", "block"]


class ModerationPolicy(StrictModel):
    """The modes for the request and for the answers. None: text is only scored."""

    input: ModerationMode | None = None
    output: ModerationMode | None = None


class InlineModeration(StrictModel):
    """The request field ``moderation``."""

    model: ValidText
    policy: ModerationPolicy | None = None

    @property
    def settings(self) -> ModerationSettings:
        """The field independent of the wire format."""
        policy = self.policy or ModerationPolicy()
        return ModerationSettings(
            partial(_check_model, self.model),
            block_input=policy.input is not None and policy.input.mode == "block",
            block_output=policy.output is not None and policy.output.mode == "block",
        )


def _check_model(name: str, model: str) -> None:
    check_moderation_model(name, model, "moderation.model")


def moderation_fields(of_input: ModerationResults, of_output: ModerationResults) -> dict[str, Any]:
    """Returns the response member ``moderation``, with the results of the request and of the answers."""
    return {"input": _fields(of_input), "output": _fields(of_output)}


def _fields(found: ModerationResults) -> dict[str, Any]:
    if found.failed:
        message = "The classifier does not answer at the moment."
        return {"type": "error", "code": "safety_unavailable", "message": message}
    kind = {"type": "moderation_result", "model": found.model}
    return {
        "type": "moderation_results",
        "model": found.model,
        "results": [kind | result_fields(each) for each in found.results],
    }
