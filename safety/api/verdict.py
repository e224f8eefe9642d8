"""``Verdict``: the finding of one check, with the spans that it is about and the action that it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """The time at which a check runs."""

    BEFORE = "before"  # on the request, before any token is generated
    DURING = "during"  # on the answer as it is generated
    AFTER = "after"  # on the whole answer


class Action(StrEnum):
    """The action that a verdict asks for, mildest first. The most severe verdict of a request decides."""

    ALLOW = "allow"
    REDACT = "redact"  # the spans of the verdict are replaced
    REVIEW = "review"  # a person decides
    BLOCK = "block"

    @property
    def severity(self) -> int:
        """The position in the order of severity, from 0, the mildest."""
        return list(Action).index(self)


@dataclass(frozen=True, slots=True)
class Span:
    """The characters ``[start, end)`` of a text in which a check found something of ``kind``, such as ``EMAIL``.

    ``replacement`` takes their place where the verdict redacts; None: the kind in angle brackets.
    """

    start: int
    end: int
    kind: str
    replacement: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The finding of one check in one passage.

    ``version`` is the version of the check, of its model or of its list. ``score`` is between 0 and 1. ``passage`` is
    the index of the passage. ``spans`` are sorted and do not overlap. ``error`` is set if the check failed or took too
    long; the passage was then not scanned, and ``action`` is the policy's action for this case.
    """

    check: str
    version: str
    action: Action
    category: str = ""
    score: float = 1.0
    passage: int = 0
    spans: tuple[Span, ...] = ()
    error: str | None = None


TOOLS = "tools"
"""``Verdict.check`` of a tool that the role may not use. ``passage`` is then the index of the tool."""


UNREADABLE = "unreadable"
"""``Verdict.error`` of a passage that is not readable."""


TOO_MUCH_ENCODED = "too_much_encoded"
"""``Verdict.error`` of a passage with encoded text that is not classified, since its request has more than is."""


FAULTS_OF_TEXTS = frozenset({UNREADABLE, TOO_MUCH_ENCODED})
"""The errors that are no fault of a check: no check could read the text. To send it again would not help."""


UNREADABLE_POLICY = "unreadable_policy"
"""``Verdict.error`` of a request whose tenant has a policy that this release cannot read."""
