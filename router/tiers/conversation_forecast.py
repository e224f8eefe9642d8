"""``conversation_chances``: what a forecaster expects of a request that may be a conversation. Pure.

A forecaster that was fitted to single requests and to a few kinds of conversations takes most open questions for tasks
once something was said before them. So the last question that is long enough to speak for itself is read alone too.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.api import Conversation
from router.tiers.quality_forecast import READ_CHARS, WORD, Forecaster, Text, features

CLEAR_WORDS, CLEAR_CHARS = 5, 30
"""A question speaks for itself from five words on, or from 30 characters on. Where no spaces part words, a character
counts as one. A shorter question ("And why?") goes on with what was asked before it."""
SURELY = 0.95  # the chance of the dearest tier from which a clear question counts, read alone
HARDLY = 0.5  # and that of each other tier, at most: what others can answer too may need what was said before
LIKELY = 0.4  # the chance of the dearest tier up to which a clear last question goes on with nothing: it may be a task
A_TASK = 0.02  # and up to which a short one does: it surely is a task


def conversation_chances(forecaster: Forecaster, prompt: Text, read_chars: int = READ_CHARS) -> tuple[float, ...]:
    """Returns the chance that each of the forecaster's tiers answers ``prompt`` correctly, 0 to 1, cheapest first.

    Those of a question alone are returned if it is clear and surely for the dearest tier, which answers open questions:
    the last one of a conversation, or the one before it where the last one only goes on with that. Otherwise, and in a
    conversation with one question, all of it is read. At most ``read_chars`` characters are read of each.
    """
    *earlier, last = _questions(prompt) or [""]
    if earlier:
        clear, chances = _is_clear(last), forecaster.expect(features(last, read_chars))
        if clear and _is_surely_open(chances):
            return chances
        before = next(filter(_is_clear, reversed(earlier)), None)
        if before is not None and chances[-1] > (LIKELY if clear else A_TASK):
            chances = forecaster.expect(features(before, read_chars))
            if _is_surely_open(chances):
                return chances
    return forecaster.expect(features(prompt, read_chars))


def _questions(prompt: Text) -> list[str]:
    """Returns what the user asked in a conversation, the last question last."""
    messages = prompt.messages if isinstance(prompt, Conversation) else ()
    return [message.content for message in messages if message.role == "user"]


def _is_surely_open(chances: Sequence[float]) -> bool:
    return chances[-1] >= SURELY and all(chance <= HARDLY for chance in chances[:-1])


def _is_clear(question: str) -> bool:
    if len(question) >= CLEAR_CHARS:
        return True
    words: list[str] = WORD.findall(question)
    return sum(word[0].isalnum() for word in words) >= CLEAR_WORDS
