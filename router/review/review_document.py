"""The JSON document of a review item: everything that is stored of it beside its text. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from safety.api import Passage, ReviewTerms, Subject, Verdict


@dataclass(frozen=True, slots=True)
class ReviewFacts:
    """The finding of a check, and the request that it was made in. ``exception_s`` and ``keep_text`` are as in
    ``ReviewTerms``."""

    request_id: str
    key_id: str
    user: str
    origin: str
    field: str
    check: str
    version: str
    category: str
    score: float
    exception_s: float
    keep_text: bool


def facts_of(subject: Subject, passage: Passage, verdict: Verdict, terms: ReviewTerms) -> ReviewFacts:
    """Returns the facts to be stored of a verdict on a passage, without the passage's text."""
    return ReviewFacts(
        subject.request_id,
        subject.key_id,
        subject.user,
        passage.origin.value,
        passage.field,
        verdict.check,
        verdict.version,
        verdict.category,
        verdict.score,
        terms.exception_s,
        terms.show_text and terms.keep_text,
    )


def encode(facts: ReviewFacts) -> str:
    """Returns ``facts`` as JSON."""
    return json.dumps(asdict(facts))


def decode(document: str) -> ReviewFacts:
    """Returns the facts in ``document``, which ``encode`` has written."""
    return ReviewFacts(**json.loads(document))
