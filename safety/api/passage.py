"""The texts of a request that are inspected, with their origins, and the owner of the request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Origin(StrEnum):
    """The origin of a passage. Instructions in passages of untrusted origin are indirect prompt injections."""

    SYSTEM = "system"  # the operator's own words: system and developer messages
    USER = "user"
    HISTORY = "history"  # earlier answers, as the client sends them back
    TOOL_RESULT = "tool_result"  # untrusted
    DOCUMENT = "document"  # untrusted: retrieved text
    TOOL = "tool"  # untrusted: the description of a tool, which others than the operator may have written
    ANSWER = "answer"
    REASONING = "reasoning"
    TOOL_ARGUMENTS = "tool_arguments"


UNTRUSTED = frozenset({Origin.TOOL_RESULT, Origin.DOCUMENT, Origin.TOOL})
"""The origins whose text comes from outside the conversation: neither the operator nor the user wrote it."""


class TextUse(StrEnum):
    """The use of the texts of a request."""

    GENERATION = "generation"  # a model reads them and answers
    EMBEDDING = "embedding"  # the client gets their vectors
    STORAGE = "storage"  # documents that are stored, and queries that are searched for: they are used as they are
    RESULT = "result"  # the client gets passages that a search has found


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to inspect. ``field`` is its path in the request, such as ``messages[2].content``, for errors.

    ``readable``: whether ``text`` is the whole passage. A prompt of token ids is not readable, and its text is empty.
    ``turn`` is the number of the earlier turn of a conversation that has the passage, if that turn may be left out as a
    whole; None: the passage is in no such turn.
    """

    text: str
    origin: Origin
    field: str = ""
    readable: bool = True
    turn: int | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """The owner of an inspected text, and its request. ``request_id`` is unique; ``role`` is the role of the API
    key."""

    tenant: str
    request_id: str
    key_id: str = ""
    user: str = ""
    role: str = "user"
