"""One instruction: which check it is, and with which arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from load_tests.quality.ifeval import (
    answer_format,
    case,
    combination,
    content,
    keywords,
    language,
    length,
    punctuation,
    start_end,
)

Check = Callable[..., bool]
"""Takes an answer, which has at least a sign that is no white space, and by name what IFEval's file gives for it."""

CHECKS: Mapping[str, Check] = {
    "change_case:capital_word_frequency": case.capital_word_frequency,
    "change_case:english_capital": case.english_capital,
    "change_case:english_lowercase": case.english_lowercase,
    "combination:repeat_prompt": combination.repeat_prompt,
    "combination:two_responses": combination.two_responses,
    "detectable_content:number_placeholders": content.number_placeholders,
    "detectable_content:postscript": content.postscript,
    "detectable_format:constrained_response": answer_format.constrained_response,
    "detectable_format:json_format": answer_format.json_format,
    "detectable_format:multiple_sections": answer_format.multiple_sections,
    "detectable_format:number_bullet_lists": answer_format.number_bullet_lists,
    "detectable_format:number_highlighted_sections": answer_format.number_highlighted_sections,
    "detectable_format:title": answer_format.title,
    "keywords:existence": keywords.existence,
    "keywords:forbidden_words": keywords.forbidden_words,
    "keywords:frequency": keywords.frequency,
    "keywords:letter_frequency": keywords.letter_frequency,
    "language:response_language": language.response_language,
    "length_constraints:nth_paragraph_first_word": length.nth_paragraph_first_word,
    "length_constraints:number_paragraphs": length.number_paragraphs,
    "length_constraints:number_sentences": length.number_sentences,
    "length_constraints:number_words": length.number_words,
    "punctuation:no_comma": punctuation.no_comma,
    "startend:end_checker": start_end.end_checker,
    "startend:quotation": start_end.quotation,
}


@dataclass(frozen=True, slots=True)
class Instruction:
    """Raises ValueError for an id or arguments that no check has."""

    id: str
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check = CHECKS.get(self.id)
        if check is None:
            raise ValueError(f"no check is called {self.id!r}")
        try:
            inspect.signature(check).bind("", **self.arguments)
        except TypeError as error:
            raise ValueError(f"{self.id}: {error}") from None
        check("a", **self.arguments)  # values that the check refuses

    @property
    def group(self) -> str:
        """The kind of instruction: "length_constraints"."""
        return self.id.partition(":")[0]

    def followed(self, answer: str) -> bool:
        """Whether ``answer`` follows the instruction, strictly. An empty answer follows none."""
        return bool(answer.strip()) and CHECKS[self.id](answer, **self.arguments)

    def loosely_followed(self, answer: str) -> bool:
        """Whether any of the answer's ``variants`` follows it."""
        return any(self.followed(variant) for variant in variants(answer))


def variants(answer: str) -> list[str]:
    """The answer; without its first line, which may introduce it; without its last, which may close it; without both;
    and each of these without asterisks, which mark type in Markdown (section 2.3 of the paper)."""
    lines = answer.strip().split("\n")
    cut = [answer, "\n".join(lines[1:]), "\n".join(lines[:-1]), "\n".join(lines[1:-1])]
    return [*cut, *(text.replace("*", "") for text in cut)]
