"""What the review queue keeps of an item beside its text, as JSON. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from safety.api import Passage, ReviewTerms, Subject, Verdict


@dataclass(frozen=True, slots=True)
class ReviewFacts:
    """What a check found, in whose request. ``exception_s`` and ``keep_text`` are as in ``ReviewTerms``."""

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
    """Returns what is kept of a verdict on a passage. Its text is not part of it."""
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
    """Returns the facts in a document of ``encode``."""
    return ReviewFacts(**json.loads(document))
