"""Documents, passages and citations, independent of the wire format and of the way in which passages are found.

A passage is a slice of a document. It keeps its offsets, in characters of the document's text, from the chunk that was
indexed to the citation in an answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from engine.api import Conversation, Message, Prompt

CONTEXT_HEAD = (
    "Use these passages to answer. Cite each passage that you use by its number in square brackets, such as [1]."
)
"""The first line of a context. It is the same for all requests, so that the prefix cache holds it."""
CONTEXT_ROLE = "user"
"""The role of a context. Text of others must not speak with the authority of a system message."""
MIN_SHOWN = 0.5
"""The share of a passage's words that the model must see for the passage to be cited."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document. ``metadata`` is kept as it is; its member ``url`` is shown in citations."""

    id: str
    text: str
    title: str = ""
    metadata: Mapping[str, str | int | float | bool] = field(default_factory=dict)


class SearchMode(StrEnum):
    """The way in which passages are searched: by words, by vectors, or both."""

    HYBRID = "hybrid"  # both, joined by reciprocal rank fusion
    BM25 = "bm25"
    VECTOR = "vector"


class PassageOrder(StrEnum):
    """The order of the passages in the context."""

    AUTO = "auto"  # DOCUMENT if the context has all chunks that exist, otherwise ENDS
    ENDS = "ends"  # the best passages at the beginning and the end
    DOCUMENT = "document"  # as in the documents


@dataclass(frozen=True, slots=True)
class RetrievalOptions:
    """The retrieval options of a request. A member that is None has the config's value; ``query`` None: the last user
    message is searched for."""

    collections: tuple[str, ...] = ()
    query: str | None = None
    top_k: int | None = None
    budget_tokens: int | None = None
    mode: SearchMode = SearchMode.HYBRID
    order: PassageOrder = PassageOrder.AUTO
    citations: bool = True


class Source(NamedTuple):
    """The document that a passage comes from. ``field`` is its path in the request, for errors, such as
    ``documents[0]`` or ``collections.NAME[ID]``; ``collection`` is empty for a document of the request."""

    field: str
    document: str
    collection: str = ""
    title: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class ContextPassage:
    """A passage as the model gets it: the characters ``[start, end)`` of a document.

    ``number`` counts from 1 in the order of the context. ``label`` has the document's title and the headings above the
    passage, which the model sees too. ``text`` is the slice of the document. ``shown`` is the text that the model sees
    instead of it, if the guard has redacted it; None: ``text``. ``score`` is that of the search, or the
    best of chunks that were joined: a higher one is more relevant, and scores of two searches cannot be compared.
    """

    number: int
    source: Source
    start: int
    end: int
    text: str
    label: str = ""
    score: float = 0.0
    shown: str | None = None

    @property
    def visible(self) -> str:
        """The text that the model sees."""
        return self.text if self.shown is None else self.shown

    @property
    def citable(self) -> bool:
        """Whether the model sees enough of the passage's text for a citation of it: all of it, or at least the share
        MIN_SHOWN of its words after redaction."""
        if self.shown is None:
            return True
        words, seen = self.text.split(), set(self.shown.split())
        return bool(words) and sum(word in seen for word in words) >= MIN_SHOWN * len(words)


@dataclass(frozen=True, slots=True)
class RetrievedContext:
    """The passages in a request's conversation, in order, and the details of the search that the client may see.

    ``citations``: the client wants the answer's citations.
    """

    passages: tuple[ContextPassage, ...]
    details: Mapping[str, Any] = field(default_factory=dict)
    citations: bool = True

    @property
    def text(self) -> str:
        """The message that the model gets; empty without passages."""
        return rendered(self.passages)

    def with_shown(self, texts: Sequence[tuple[str, str]]) -> RetrievedContext:
        """Returns the context with other texts for the model. ``texts`` has the label and the text of each passage.

        Where a label has changed, it takes the place of the document's title, which citations and details show.
        """
        passages = tuple(
            replace(
                each,
                label=label,
                shown=None if text == each.text else text,
                source=each.source if label == each.label else each.source._replace(title=label),
            )
            for each, (label, text) in zip(self.passages, texts, strict=True)
        )
        return replace(self, passages=passages, details=_with_titles(self.details, passages))


def _with_titles(details: Mapping[str, Any], passages: Sequence[ContextPassage]) -> Mapping[str, Any]:
    """Returns the details of a search with the titles of ``passages``, which they list in the same order."""
    listed = details.get("passages")
    if not listed:
        return details
    shown = [{**each, "title": passage.source.title or None} for each, passage in zip(listed, passages, strict=True)]
    return {**details, "passages": shown}


class CitedBy(StrEnum):
    """The evidence for a citation."""

    MARKER = "marker"  # the model wrote the passage's number
    OVERLAP = "overlap"  # a sentence of the answer has the words of a sentence of the passage


class Citation(NamedTuple):
    """A citation: the characters ``[start, end)`` of an answer refer to the characters ``[source_start, source_end)``
    of a document. ``score`` is the share of the sentence's words that the source has, 0 to 1."""

    start: int
    end: int
    passage: ContextPassage
    source_start: int
    source_end: int
    by: CitedBy
    score: float


def rendered(passages: Sequence[ContextPassage]) -> str:
    """Returns the message with ``passages``, each between marks that its text cannot close; '' for none."""
    if not passages:
        return ""
    return "\n\n".join([CONTEXT_HEAD, *map(_marked, passages)])


def _marked(passage: ContextPassage) -> str:
    label = f": {_inert(' '.join(passage.label.split()))}" if passage.label else ""
    return f"<passage {passage.number}{label}>\n{_inert(passage.visible)}\n</passage>"


def _inert(text: str) -> str:
    """Returns ``text`` without what could be taken for the beginning or the end of a passage."""
    return text.replace("<passage", "< passage").replace("</passage", "< /passage")


def with_context(prompt: Prompt, context: str) -> Prompt:
    """Returns ``prompt`` with ``context`` as a message of its own before the last message of the user, or at the end if
    there is none.

    What comes before the context stays the beginning of the prompt, so the prefix cache still holds it. A prompt that
    is no conversation, or an empty context, changes nothing.
    """
    if not isinstance(prompt, Conversation) or not context:
        return prompt
    messages = prompt.messages
    users = [place for place, message in enumerate(messages) if message.role == "user"]
    place = users[-1] if users else len(messages)
    return replace(prompt, messages=(*messages[:place], Message(CONTEXT_ROLE, context), *messages[place:]))


def url_of(metadata: Mapping[str, Any]) -> str:
    """Returns the web address of a document; '' if its metadata has none."""
    url = metadata.get("url")
    return url if isinstance(url, str) and url.startswith(("https://", "http://")) else ""


def size_of(document: Document) -> int:
    """Returns the size in bytes (UTF-8) that a document takes in the store."""
    texts = (document.id, document.title, document.text, json.dumps(dict(document.metadata), ensure_ascii=False))
    return sum(len(text.encode()) for text in texts)
