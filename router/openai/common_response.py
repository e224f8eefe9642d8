"""What the chunks of both endpoints' streams have in common, and the usage object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as quote
from types import MappingProxyType
from typing import Any

from engine.api import Usage
from router.answer_events import Stamp

DONE = "[DONE]"
"""The last message of a stream that ended well; one that failed ends with an error instead."""


class ChunkTemplate:
    """A chunk around its choices: ``head``, the choices as JSON, ``tail``. Both are serialised once for each stream.

    ``members`` are more members of every chunk.
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
        self.tail = f"]{no_usage}}}"
        self._include_usage = include_usage

    def last(self, usage: Usage) -> list[str]:
        """The last chunks of a stream: the token counts, if they were asked for, and the end."""
        if not self._include_usage:
            return [DONE]
        return [f'{self.head}],"usage":{json.dumps(usage_fields(usage))}}}', DONE]


def usage_fields(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
