"""The checks of one question, and which of them an answer fails."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from load_tests.quality.ifeval.text import sentences
from load_tests.quality.open_questions.match import mentioned, mentions, words
from load_tests.quality.open_questions.prose import is_prose, loops


class Names(BaseModel):
    """``at_least`` of these must occur."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_least: int = Field(ge=1)
    of: tuple[str, ...] = Field(min_length=1)


class Checks(BaseModel):
    """What a right answer has. Words and phrases are as in ``match.mentions``; lengths are in words and sentences."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mentions: tuple[tuple[str, ...], ...] = ()  # of each group at least one
    names: Names | None = None
    lacks: tuple[str, ...] = ()  # none of these
    min_words: int = Field(default=1, ge=1)
    max_words: int | None = Field(default=None, ge=1)
    min_sentences: int = Field(default=1, ge=1)
    max_sentences: int | None = Field(default=None, ge=1)
    prose_from: int | None = Field(default=None, ge=1)  # answers of this many words or more must be English prose

    def failed(self, answer: str) -> Iterator[str]:
        """The names of the checks that ``answer`` fails; "loop" is one that all questions have."""
        length, count = len(words(answer)), sentences(answer)
        if not all(mentioned(answer, group) for group in self.mentions):
            yield "mentions"
        if self.names is not None and mentioned(answer, self.names.of) < self.names.at_least:
            yield "names"
        if any(mentions(answer, phrase) for phrase in self.lacks):
            yield "lacks"
        if length < self.min_words:
            yield "min_words"
        if self.max_words is not None and length > self.max_words:
            yield "max_words"
        if count < self.min_sentences:
            yield "min_sentences"
        if self.max_sentences is not None and count > self.max_sentences:
            yield "max_sentences"
        if self.prose_from is not None and length >= self.prose_from and not is_prose(answer):
            yield "prose"
        if loops(answer):
            yield "loop"
