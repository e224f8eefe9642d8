"""``conversation_chances``: what a forecaster expects of a request that may be a conversation. Pure.

A forecaster that was fitted to single requests and to a few kinds of conversations takes most open questions for tasks
once something was said before them. So the last question that is long enough to speak for itself is read alone too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from engine.api import Conversation
from router.tiers.quality_forecast import READ_CHARS, WORD, Forecaster, Text, features

CLEAR_WORDS, CLEAR_CHARS = 5, 30
"""A question speaks for itself from five words on, or from 30 characters on. Where no spaces part words, a character
counts as one. A shorter question ("And why?") goes on with what was asked before it."""
SURELY = 0.95  # the chance that a question is open, or a task, from which it counts, read alone
LIKELY = 0.5  # the chance that a clear question is open up to which it goes on with nothing
HARDLY = 0.5  # the chance of each tier but the dearest, at most: what others can answer may need what was said before


def conversation_chances(forecaster: Forecaster, prompt: Text, read_chars: int = READ_CHARS) -> tuple[float, ...]:
    """Returns the chance that each of the forecaster's tiers answers ``prompt`` correctly, 0 to 1, cheapest first.

    Those of a question alone are returned if it is clear and surely for the dearest tier, which answers open questions:
    the last one of a conversation, or the one before it where the last one only goes on with that. Otherwise, and in a
    conversation with one question, all of it is read. At most ``read_chars`` characters are read of each.
    """
    for question in _questions_to_read_alone(forecaster, prompt, read_chars):
        chances = forecaster.expect(features(question, read_chars))
        if _open_chance(forecaster, chances) >= SURELY and all(chance <= HARDLY for chance in chances[:-1]):
            return chances
    return forecaster.expect(features(prompt, read_chars))


def _questions_to_read_alone(forecaster: Forecaster, prompt: Text, read_chars: int) -> Iterator[str]:
    """Yields the questions that may decide for a conversation with two questions or more, the last one first."""
    if not isinstance(prompt, Conversation):
        return
    *earlier, last = [message.content for message in prompt.messages if message.role == "user"] or [""]
    if not earlier:
        return
    clear = _is_clear(last)
    if clear:
        yield last
    open_chance = _open_chance(forecaster, forecaster.expect(features(last, read_chars)))
    if open_chance > (LIKELY if clear else 1 - SURELY):
        yield from islice(filter(_is_clear, reversed(earlier)), 1)


def _open_chance(forecaster: Forecaster, chances: Sequence[float]) -> float:
    """Returns the chance that a request is open, whether or not the dearest tier would answer it right."""
    return chances[-1] / forecaster.open_share


def _is_clear(question: str) -> bool:
    if len(question) >= CLEAR_CHARS:
        return True
    words: list[str] = WORD.findall(question)
    return sum(word[0].isalnum() for word in words) >= CLEAR_WORDS
