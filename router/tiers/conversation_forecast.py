"""``conversation_chances``: what a forecaster expects of a request that may be a conversation. Pure.

A forecaster that was fitted to single requests and to a few kinds of conversations takes most open questions for tasks
once something was said before them. So the last question that is long enough to speak for itself is read alone too.
"""

from __future__ import annotations

from engine.api import Conversation
from router.tiers.quality_forecast import READ_CHARS, WORD, Forecaster, Text, features

CLEAR_WORDS, CLEAR_CHARS = 5, 30
"""A question speaks for itself from five words on, or from 30 characters on. Where no spaces part words, a character
counts as one. A shorter question ("And why?") goes on with what was asked before it."""
SURELY = 0.95  # the chance that a question is open from which it counts, read alone
HARDLY = 0.5  # and that of each other tier, at most: what others can answer too may need what was said before
A_TASK = 0.9  # the chance of another tier from which a short question is a task, and goes on with nothing


def conversation_chances(forecaster: Forecaster, prompt: Text, read_chars: int = READ_CHARS) -> tuple[float, ...]:
    """Returns the chance that each of the forecaster's tiers answers ``prompt`` correctly, 0 to 1, cheapest first.

    Those of a question alone are returned if it is surely for the dearest tier, which answers open questions: the last
    question of a conversation that speaks for itself. Otherwise, and in a conversation with one question, all of it is
    read. At most ``read_chars`` characters are read of each.
    """
    question = _open_question(forecaster, prompt, read_chars)
    if question is not None:
        chances = forecaster.expect(features(question, read_chars))
        if chances[-1] >= SURELY * forecaster.open_share and all(chance <= HARDLY for chance in chances[:-1]):
            return chances
    return forecaster.expect(features(prompt, read_chars))


def _open_question(forecaster: Forecaster, prompt: Text, read_chars: int) -> str | None:
    """Returns the question that may decide for a conversation with two questions or more; None: there is none."""
    if not isinstance(prompt, Conversation):
        return None
    questions = [message.content for message in prompt.messages if message.role == "user"]
    if len(questions) < 2:
        return None
    clear = next((each for each in reversed(questions) if _is_clear(each)), None)
    if clear is None or clear is questions[-1]:
        return clear
    alone = forecaster.expect(features(questions[-1], read_chars))
    return None if any(chance >= A_TASK for chance in alone[:-1]) else clear


def _is_clear(question: str) -> bool:
    if len(question) >= CLEAR_CHARS:
        return True
    return sum(word[0].isalnum() for word in WORD.findall(question)) >= CLEAR_WORDS
