"""``PromptReport``: the parts that a prompt was assembled from, and the parts that were left out, for the usage details
and a header."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class PromptPart(StrEnum):
    """The kind of a message of a prompt. Kinds that change less often come first, so that prefixes are cached."""

    TEMPLATE = "template"  # of a stored prompt
    SYSTEM = "system"  # the client's own system and developer messages
    TOOLS = "tools"  # the descriptions of tools
    CONVERSATION = "conversation"
    CONTEXT = "context"  # retrieved passages
    LAST_TURN = "last_turn"  # the last user message and what follows it


@dataclass(frozen=True, slots=True)
class PartCount:
    """The size of one part of the prompt. ``tokens`` is an estimate. ``messages`` is the number of messages; for the
    part ``tools``, that of tools."""

    part: PromptPart
    messages: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Removed:
    """The text that a policy for long conversations has left out. All token counts are estimates.

    ``messages`` messages with ``tokens`` tokens were dropped. ``compressed`` messages were shortened: they had
    ``tokens_before`` tokens and have ``tokens_left``.
    """

    messages: int = 0
    tokens: int = 0
    compressed: int = 0
    tokens_before: int = 0
    tokens_left: int = 0

    def plus(self, later: Removed) -> Removed:
        """Returns the sum of this and ``later``, the text that a second step has left out. A message that both steps
        shortened counts twice."""
        return Removed(
            self.messages + later.messages,
            self.tokens + later.tokens,
            self.compressed + later.compressed,
            self.tokens_before + later.tokens_before,
            self.tokens_left + later.tokens_left,
        )


@dataclass(frozen=True, slots=True)
class PromptReport:
    """The parts of an assembled prompt, and the parts that were dropped and compressed. ``before`` and ``after`` are
    the estimated tokens of the whole prompt.

    ``policy`` is the policy that was applied to a conversation that was too long: ``larger_tier``, ``retrieve``,
    ``compress`` or ``trim``; None: nothing. ``tier`` is the tier that was chosen first, if a larger one takes the
    request.
    """

    parts: tuple[PartCount, ...] = ()
    policy: str | None = None
    removed: Removed = Removed()
    before: int = 0
    after: int = 0
    tier: str | None = None

    @property
    def header(self) -> str | None:
        """The value of ``x-manta-context``, such as ``trim; dropped=12; before=9120; after=1790``; None if nothing was
        left out and the tier was not changed. Token counts are estimates."""
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
