"""``PromptReport``: what a prompt was made of, and what was left out, for the usage details and a header."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Part(StrEnum):
    """What a message of a prompt is. Parts that change less often come first, so that prefixes are cached."""

    TEMPLATE = "template"  # of a stored prompt
    SYSTEM = "system"  # the client's own system and developer messages
    TOOLS = "tools"  # the descriptions of tools
    CONVERSATION = "conversation"
    CONTEXT = "context"  # retrieved passages
    LAST_TURN = "last_turn"  # the last user message and what follows it


@dataclass(frozen=True, slots=True)
class PartCount:
    """How large a part of the prompt is. ``tokens`` is an estimate, ``messages`` counts tools in the part ``tools``."""

    part: Part
    messages: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Removed:
    """What a policy for long conversations has left out. ``tokens`` is an estimate.

    ``messages`` were dropped whole; ``compressed`` were shortened, and have ``tokens_left`` of ``tokens_before``.
    """

    messages: int = 0
    tokens: int = 0
    compressed: int = 0
    tokens_before: int = 0
    tokens_left: int = 0

    def plus(self, later: Removed) -> Removed:
        """Returns what was left out in two steps. A message that was shortened in both counts twice."""
        return Removed(
            self.messages + later.messages,
            self.tokens + later.tokens,
            self.compressed + later.compressed,
            self.tokens_before + later.tokens_before,
            self.tokens_left + later.tokens_left,
        )


@dataclass(frozen=True, slots=True)
class PromptReport:
    """What was put in, dropped and compressed. ``before`` and ``after`` are the estimated tokens of the whole prompt.

    ``policy`` is what was done with a conversation that was too long: ``larger_tier``, ``retrieve``, ``compress`` or
    ``trim``; None: nothing. ``tier`` is the tier that the request would have gone to, where another one has taken it.
    """

    parts: tuple[PartCount, ...] = ()
    policy: str | None = None
    removed: Removed = Removed()
    before: int = 0
    after: int = 0
    tier: str | None = None

    @property
    def header(self) -> str | None:
        """The value of ``x-manta-context``, such as ``trim; dropped=12; before=9120; after=1790``; None: the prompt is
        whole and in its place. Counts of tokens are estimates."""
        if self.policy is None:
            return None
        facts: dict[str, object] = {}
        if self.tier is not None:
            facts["from"] = self.tier
        if self.policy != "larger_tier":
            facts |= {"dropped": self.removed.messages, "compressed": self.removed.compressed}
        facts |= {"before": self.before, "after": self.after}
        return "; ".join([self.policy, *(f"{name}={value}" for name, value in facts.items())])

    @property
    def fields(self) -> dict[str, Any]:
        """The member ``prompt_details`` of a response's usage."""
        removed = self.removed
        shown: dict[str, Any] = {
            "estimated": True,
            "parts": [
                {"part": each.part.value, "messages": each.messages, "tokens": each.tokens} for each in self.parts
            ],
            "policy": self.policy,
            "dropped": {"messages": removed.messages, "tokens": removed.tokens},
            "compressed": {
                "messages": removed.compressed,
                "tokens_before": removed.tokens_before,
                "tokens_after": removed.tokens_left,
            },
        }
        return shown if self.tier is None else {**shown, "from_tier": self.tier}
