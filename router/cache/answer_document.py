"""The answers of a cache entry as JSON: written when they are stored, read and checked when they are found. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from engine.api import FinishReason, Usage
from router.complete_answer import Answer, ToolCall
from router.ports.cache_entry import PoisonedEntryError

USAGE = tuple(field.name for field in fields(Usage))


@dataclass(frozen=True, slots=True)
class StoredAnswers:
    """The whole answers to a request, in the order of their index, and what their generation used."""

    answers: tuple[Answer, ...]
    usage: Usage
    reasoning_tokens: int = 0


def encode_answers(stored: StoredAnswers) -> str:
    """Returns ``stored`` as JSON. Log probabilities are not kept."""
    rows = [
        {
            "prompt": answer.prompt,
            "text": answer.text,
            "finish_reason": answer.finish_reason.value,
            "called": answer.called,
            "tool_calls": [[call.name, call.arguments] for call in answer.tool_calls],
            "reasoning": answer.reasoning,
        }
        for answer in stored.answers
    ]
    document = {
        "answers": rows,
        "usage": {name: getattr(stored.usage, name) for name in USAGE},
        "reasoning_tokens": stored.reasoning_tokens,
    }
    return json.dumps(document, separators=(",", ":"))


def decode_answers(document: str, prompts: Sequence[int]) -> StoredAnswers:
    """Returns the answers in ``document``, which ``encode_answers`` has written. The ids of tool calls are "": each
    answer gets new ones.

    ``prompts`` has the index of the prompt of each choice of the request. Raises PoisonedEntryError, whose message
    quotes no text, if ``document`` is malformed or does not answer these prompts.
    """
    try:
        members = json.loads(document)
        answers = tuple(_answer(index, row) for index, row in enumerate(members["answers"]))
        usage = Usage(**{name: int(members["usage"][name]) for name in USAGE})
        stored = StoredAnswers(answers, usage, int(members["reasoning_tokens"]))
    except (ValueError, TypeError, KeyError, IndexError):
        raise PoisonedEntryError("the answers cannot be read") from None
    if [answer.prompt for answer in answers] != list(prompts):
        raise PoisonedEntryError("the answers are another request's")
    return stored


def _answer(index: int, row: dict[str, Any]) -> Answer:
    """Returns the answer in ``row``. Raises TypeError for a member of another type, ValueError for another ending."""
    text, reasoning, calls = row["text"], row["reasoning"], row["tool_calls"]
    strings = [text, *([] if reasoning is None else [reasoning]), *(part for call in calls for part in call)]
    if not all(isinstance(string, str) for string in strings):
        raise TypeError("a text is no string")
    tool_calls = tuple(ToolCall("", name, arguments) for name, arguments in calls)
    reason = FinishReason(row["finish_reason"])
    return Answer(index, int(row["prompt"]), text, reason, bool(row["called"]), tool_calls, reasoning=reasoning)
