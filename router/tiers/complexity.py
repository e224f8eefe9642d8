"""How hard a request looks, as an explainable score. Pure: text in, score and reasons out.

The score is the sum of signals, each between 0 and its weight, clipped to 1. They are surface signals, cheap enough for
every request (one pass of a few regular expressions); a later model can replace them behind the same function.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.api import Conversation, Prompt

CHARS_PER_TOKEN = 4  # of English; only for judging length
LONG_PROMPT = 1500  # tokens from which the length signal is full
LONG_ANSWER = 1000  # max_tokens from which the signal is full
MANY_TURNS = 8
SCANNED_CHARS = 20_000  # a longer prompt is complex by its length; the rest need not be read

# Every repetition below is bounded or anchored to a line, so that no text, however hostile, costs more than one pass.
REASONING = re.compile(
    r"\b(prove|proof|derive|explain why|step by step|reason(ing)?|analy[sz]e|compare|trade-?offs?|evaluate|design|"
    r"architect\w{0,6}|optimi[sz]e|debug|refactor|implement|algorithm|complexity|hypothes\w{1,4}|strategy|plan)\b",
    re.IGNORECASE,
)
CODE = re.compile(
    r"```|\b(def|class|import|return|SELECT|function|lambda|public static)\b|[{};][ \t]{0,4}$", re.MULTILINE
)
MATHS = re.compile(r"\d\s?[-+*/^=<>]\s?\d|\\(frac|sum|int|sqrt)|\b(integral|derivative|equation|theorem|matrix)\b")
STEPS = re.compile(
    r"^[ \t]{0,16}(\d{1,3}[.)]|[-*])[ \t]|\b(first|second|then|finally|after that|and then)\b",
    re.IGNORECASE | re.MULTILINE,
)
CREATIVE = re.compile(r"\b(essay|story|poem|article|report|proposal|novel|screenplay)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Complexity:
    """``score`` in [0, 1] and the signals that made it, strongest first, as (name, contribution)."""

    score: float
    signals: tuple[tuple[str, float], ...]

    def reason(self) -> str:
        """One line of ASCII: ``score=0.42 (reasoning +0.25, length +0.17)``."""
        parts = ", ".join(f"{name} +{value:.2f}" for name, value in self.signals) or "no signal"
        return f"score={self.score:.2f} ({parts})"


def complexity(prompt: Prompt, max_tokens: int | None, scanned_chars: int = SCANNED_CHARS) -> Complexity:
    """How complex ``prompt`` looks, given the answer length asked for. Reads ``scanned_chars`` of it."""
    text, turns = _flatten(prompt)
    tokens = len(prompt) if isinstance(prompt, tuple) else len(text) / CHARS_PER_TOKEN
    scanned = text[:scanned_chars]
    signals = {
        "length": 0.30 * min(tokens / LONG_PROMPT, 1.0),
        "reasoning": _counted(REASONING, scanned, 0.35, full_at=3),
        "code": _counted(CODE, scanned, 0.25, full_at=2),
        "maths": _counted(MATHS, scanned, 0.20, full_at=2),
        "steps": _counted(STEPS, scanned, 0.15, full_at=4),
        "writing": _counted(CREATIVE, scanned, 0.15, full_at=1),
        "turns": 0.10 * min((turns - 1) / MANY_TURNS, 1.0),
        "answer length": 0.10 * min((max_tokens or 0) / LONG_ANSWER, 1.0),
    }
    ranked = sorted(((n, v) for n, v in signals.items() if v >= 0.005), key=lambda signal: -signal[1])
    return Complexity(min(sum(signals.values()), 1.0), tuple(ranked))


def _flatten(prompt: Prompt) -> tuple[str, int]:
    """The text to judge and the number of turns of the user. System prompts are the same for every request of an
    application and say nothing about this one."""
    if isinstance(prompt, Conversation):
        spoken = [m.content for m in prompt.messages if m.role == "user"]
        return "\n".join(spoken), max(len(spoken), 1)
    return ("", 1) if isinstance(prompt, tuple) else (prompt, 1)


def _counted(pattern: re.Pattern[str], text: str, weight: float, full_at: int) -> float:
    """``weight`` in proportion to the matches of ``pattern``, full at ``full_at`` of them."""
    found = 0
    for _ in pattern.finditer(text):
        found += 1
        if found == full_at:
            break
    return weight * found / full_at
