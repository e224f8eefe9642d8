"""``conversation_chances``: what a forecaster expects of a request that may be a conversation. Pure.

A forecaster that was fitted to single requests and to a few kinds of conversations takes most open questions for tasks
once something was said before them. So the last question that is long enough to speak for itself is read alone too.
"""

from __future__ import annotations

from engine.api import Conversation
from router.tiers.quality_forecast import READ_CHARS, Forecaster, Text, features

SPEAKS_FOR_ITSELF = 6  # words of a question; a shorter one ("And why?") goes on with what was asked before it
SURELY = 0.95  # the chance of the dearest tier from which a question read alone counts
HARDLY = 0.5  # and that of each other tier, at most: what others can answer too may need what was said before


def conversation_chances(forecaster: Forecaster, prompt: Text, read_chars: int = READ_CHARS) -> tuple[float, ...]:
    """Returns the chance that each of the forecaster's tiers answers ``prompt`` correctly, 0 to 1, cheapest first.

    Those of a question alone are returned if it is surely for the dearest tier, which answers open questions: the last
    question of a conversation with SPEAKS_FOR_ITSELF words or more. Otherwise, and in a conversation with one question,
    all of it is read. At most ``read_chars`` characters are read of each.
    """
    question = _last_clear_question(prompt)
    if question is not None:
        chances = forecaster.expect(features(question, read_chars))
        if chances[-1] >= SURELY and all(chance <= HARDLY for chance in chances[:-1]):
            return chances
    return forecaster.expect(features(prompt, read_chars))


def _last_clear_question(prompt: Text) -> str | None:
    """Returns the last question that speaks for itself, of a conversation with two questions or more."""
    if not isinstance(prompt, Conversation):
        return None
    questions = [message.content for message in prompt.messages if message.role == "user"]
    if len(questions) < 2:
        return None
    return next((each for each in reversed(questions) if _is_clear(each)), None)


def _is_clear(question: str) -> bool:
    words = question.split(maxsplit=SPEAKS_FOR_ITSELF)  # a long question is not divided as a whole
    return len(words) >= SPEAKS_FOR_ITSELF
