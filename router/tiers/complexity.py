"""``complexity``: a heuristic score of a prompt's difficulty, by which ``auto`` chooses a tier where there is no
forecaster. Pure.

The score is the sum of signals, each between 0 and its weight, and is at most 1. Signals are matches of regular
expressions, the lengths of prompt and answer, and the number of turns. They are cheap enough for every request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.api import Conversation, Prompt

CHARS_PER_TOKEN = 4  # of English text; an estimate for the length signal
LONG_PROMPT = 1500  # tokens from which the length signal has its full weight
LONG_ANSWER = 1000  # max_tokens from which the answer length signal has its full weight
MANY_TURNS = 8  # earlier turns from which the turns signal has its full weight
SCANNED_CHARS = 20_000  # characters of a request that the regular expressions read, which bounds the time

# Every repetition below is bounded or anchored to a line, so that no hostile text can cause backtracking.
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
    """A complexity score, 0 to 1, and its signals as (name, contribution), largest contribution first.

    Contributions below 0.005 are left out of ``signals``.
    """

    score: float
    signals: tuple[tuple[str, float], ...]

    def reason(self) -> str:
        """Returns a line of ASCII such as ``score=0.42 (reasoning +0.25, length +0.17)``; without a signal,
        ``score=0.00 (no signal)``."""
        parts = ", ".join(f"{name} +{value:.2f}" for name, value in self.signals) or "no signal"
        return f"score={self.score:.2f} ({parts})"


def complexity(prompt: Prompt, max_tokens: int | None, scanned_chars: int = SCANNED_CHARS) -> Complexity:
    """Returns the complexity score of ``prompt``. ``max_tokens`` is the requested length limit of the answer; None:
    there is none.

    The regular expressions read the first ``scanned_chars`` characters. For token ids only their number counts.
    """
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
    """Returns the text of the user's messages and their number. Plain text is one message; token ids have no text.

    System prompts are left out, because they are the same for every request of an application.
    """
    if isinstance(prompt, Conversation):
        spoken = [m.content for m in prompt.messages if m.role == "user"]
        return "\n".join(spoken), max(len(spoken), 1)
    return ("", 1) if isinstance(prompt, tuple) else (prompt, 1)


def _counted(pattern: re.Pattern[str], text: str, weight: float, full_at: int) -> float:
    """Returns ``weight`` in proportion to the matches of ``pattern``, all of it from ``full_at`` matches."""
    found = 0
    for _ in pattern.finditer(text):
        found += 1
        if found == full_at:
            break
    return weight * found / full_at
