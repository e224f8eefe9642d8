"""``verdict_labels``: the labels of the guard's verdicts, of which there is a fixed number whatever policies say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cluster.telemetry.bounded_label import bounded
from router.openai.moderations import CATEGORIES as CONTENT
from safety.api import Stage, Verdict
from safety.classification import CLASSIFIER, INJECTION

STRUCTURE = frozenset(
    {"role_marker", "hidden_text", "encoded_text", "size", "odd_characters", "repetition", "script_mixture"}
)
"""The categories of the checks ``structure`` and ``sizes``, beside SCRIPT."""
SCRIPT = "script"
HARMFUL = "harmful"
"""What the shipped classifier has beside the categories of OpenAI."""
CATEGORIES_OF: Mapping[str, frozenset[str]] = {
    CLASSIFIER: frozenset({*CONTENT, HARMFUL, INJECTION}),
    "structure": STRUCTURE,
    "sizes": STRUCTURE | {SCRIPT},
}
"""The categories of the checks that have several. Any other one of theirs is counted as ``other``."""
CATEGORIES = frozenset().union(*CATEGORIES_OF.values())
SINGLE = frozenset({"phrases", "pii", "secrets", "prompt_leak", "prompt_canary", "tools", "rate", "reading", "policy"})
"""The checks whose verdicts have the check as their category. Kinds of personal data and of secrets would be 40
categories, of each of which a policy may have its own; the audit log has them."""
CHECKS = frozenset({*CATEGORIES_OF, *SINGLE})
UNSCANNED = "unscanned"
"""The category of a verdict whose check has failed, or took too long."""


class VerdictLabels(NamedTuple):
    """The values of the labels of a verdict."""

    stage: str
    check: str
    category: str
    action: str


def verdict_labels(verdict: Verdict, stage: Stage) -> VerdictLabels:
    """Returns the labels of a verdict that was given at ``stage``. A check or a category that is not known here is
    ``other``."""
    return VerdictLabels(stage.value, bounded(verdict.check, CHECKS), _category(verdict), verdict.action.value)


def _category(verdict: Verdict) -> str:
    if verdict.error is not None:
        return UNSCANNED
    return verdict.check if verdict.check in SINGLE else bounded(verdict.category, CATEGORIES_OF.get(verdict.check, ()))
