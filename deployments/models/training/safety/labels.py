"""The labels of the classifier, in the order of its outputs."""

from __future__ import annotations

from typing import Final

CATEGORIES: Final = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
"""The categories of OpenAI's moderation API."""

HARMFUL: Final = "harmful"
"""A harmful request or harmful content of any kind."""

INJECTION: Final = "injection"
"""A prompt injection or a jailbreak."""

LABELS: Final = (*CATEGORIES, HARMFUL, INJECTION)

PARENTS: Final = {
    "harassment/threatening": "harassment",
    "hate/threatening": "hate",
    "illicit/violent": "illicit",
    "self-harm/intent": "self-harm",
    "self-harm/instructions": "self-harm",
    "sexual/minors": "sexual",
    "violence/graphic": "violence",
}
"""The category that holds whenever the key holds."""


def kind_of(label: str) -> str:
    """What ``config.json`` calls the kind of ``label``."""
    return label if label == INJECTION else "overall" if label == HARMFUL else "category"
