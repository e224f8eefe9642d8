"""The members that the responses of /v1/chat/completions and /v1/completions have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring_ascii as quote
from types import MappingProxyType
from typing import Any

from engine.api import Usage
from router.answer_events import Moderated, Stamp
from router.complete_answer import Answer
from router.openai.errors import error_fields, token_counts
from router.openai.moderation_field import moderation_fields

DONE = "[DONE]"
"""The data of the last SSE event of a complete stream. A stream that fails ends with an error object instead."""


class ChunkTemplate:
    """The JSON of a stream chunk without its choices. A chunk is ``head``, the choices as JSON and ``tail``.

    Both are serialised once per stream, which makes a chunk cheap. ``kind`` is the chunk's ``object``. ``members`` are
    further members of every chunk.
    """

    def __init__(
        self,
        kind: str,
        answer_id: str,
        stamp: Stamp,
        include_usage: bool,
        members: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        more = "".join(f"{quote(name)}:{quote(value)}," for name, value in members.items())
        self.head = (
            f'{{"id":{quote(answer_id)},"object":{quote(kind)},"created":{stamp.created},'
            f'"model":{quote(stamp.model)},{more}"choices":['
        )
        no_usage = ',"usage":null' if include_usage else ""
        self._stamp = stamp
        self.tail = f"]{no_usage}}}"
        self._include_usage = include_usage

    def moderation(self, event: Moderated) -> str:
        """Returns the stream chunk with the scores of inline moderation."""
        fields = json.dumps(moderation_fields(event.input, event.output), separators=(",", ":"))
        return f'{self.head}{self.tail[:-1]},"moderation":{fields}}}'

    def last(self, usage: Usage) -> list[str]:
        """Returns the last chunks of a stream: one with the token counts, if ``include_usage``, and DONE."""
        if not self._include_usage:
            return [DONE]
        return [f'{self.head}],"usage":{json.dumps(usage_fields(usage, self._stamp))}}}', DONE]


def response_fields(kind: str, answer_id: str, stamp: Stamp) -> dict[str, Any]:
    """Returns the first members of a response that is not streamed. ``kind`` is its ``object``."""
    return {
        "id": answer_id,
        "object": kind,
        "created": stamp.created,
        "model": stamp.model,
    }


def moderation_of(answers: Sequence[Answer]) -> dict[str, Any]:
    """Returns the member ``moderation`` of a response that is not streamed, in a dict; {} if the request did not ask
    for it."""
    found = answers[0].moderation if answers else None
    return {} if found is None else {"moderation": moderation_fields(*found)}


def usage_fields(usage: Usage, stamp: Stamp) -> dict[str, Any]:
    """Returns OpenAI's usage object with the tokens of reasoning, and Manta's members ``prompt_details``,
    ``retrieval_details`` and ``failover_details`` if there are any."""
    count, other_version = stamp.failovers()
    failover = {"failovers": count, "other_version": other_version} if count else None
    details = {
        "prompt_details": stamp.prompt_details(),
        "retrieval_details": stamp.retrieval,
        "failover_details": failover,
    }
    further = {name: value for name, value in details.items() if value is not None}
    reasoning = {"completion_tokens_details": {"reasoning_tokens": stamp.reasoning_tokens()}}
    return {**token_counts(usage), **reasoning, **further}


def fault_of(answer: Answer) -> dict[str, Any]:
    """Returns Manta's member ``error`` of a choice that a failure has cut off; nothing for any other."""
    return {} if answer.fault is None else {"error": error_fields(answer.fault)}
