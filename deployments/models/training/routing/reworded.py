"""Tasks of the curriculum in other words, as people ask who do not know its phrasings.

Every tier is right more often where training had the phrasing, and the smaller it is, the more it depends on that. A
forecaster that was fitted to the curriculum's own phrasings alone therefore expects too much of the small tiers. What
is asked for stays the same, and so does the answer.

The wordings come in two halves: the forecaster is fitted to one, and judged by the other.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deployments.models.training.curriculum.task import FAMILIES, Task, Turn

GREETED = "conversation"
SHORT = 4  # words of a greeting at most
PLAIN = 0.3  # of the tasks keep their first words and get something before or behind
BOTH = 0.3  # of those with other first words get something before or behind as well


@dataclass(frozen=True, slots=True)
class Wordings:
    """What may stand before and behind a question, behind a greeting, and instead of the first words of a line."""

    before: tuple[str, ...]
    behind: tuple[str, ...]
    behind_greeting: tuple[str, ...]
    instead: Mapping[str, tuple[str, ...]]


FITTED = Wordings(
    before=(
        "Could you help? ",
        "This is what I want: ",
        "Dear model, ",
        "Now then: ",
        "Can you do that? ",
        "For my work: ",
        "One more question. ",
        "You can surely do this. ",
        "I need help with this: ",
        "I want you to do this: ",
        "A friend asked me: ",
        "It would be good to know: ",
        "Listen. ",
        "Do this for me: ",
        "We need this for school. ",
        "Show me that you can. ",
        "My question is this. ",
        "And another thing: ",
        "To begin with, ",
        "Well, ",
    ),
    behind=(
        "Be exact.",
        "That is all I need.",
        "Can you do it?",
        "Say no more than you need to.",
        "I need it now.",
        "Take your time.",
        "I am sure you can.",
        "My boss wants it.",
        "Is that hard?",
        "Many thanks!",
    ),
    behind_greeting=(
        ", dear friend",
        " to you all",
        ", my dear",
        " from me",
        " to everyone here",
        ", machine",
        " as ever",
        " and thanks",
    ),
    instead={
        "Find": ("Look for", "Get me", "Point out"),
        "Tell me": ("Let me know", "Pass me", "I want to know"),
        "What is": ("Do you know what is", "Pass me", "Do you happen to know what is", "I need to know what is"),
        "What does": ("Do you know what", "I want to know what"),
        "What": ("Say what", "I need to know what"),
        "Which": ("Do you know which", "Say which", "I need to know which"),
        "Who": ("Do you know who", "Say who", "I need to know who"),
        "Whose": ("Do you know whose", "Say whose"),
        "How many": ("Count how many", "Do you know how many"),
        "How much": ("Do you know how much", "Say how much"),
        "How": ("Do you know how", "I want to know how"),
        "Name": ("Mention", "Let me have"),
        "Look up": ("Look for", "Get me"),
        "Write": ("Produce", "Let me have", "Get me"),
        "Put": ("Bring", "Move"),
        "Sort": ("Please order", "Arrange"),
        "Calculate": ("Determine", "Work on", "Figure out"),
        "Compute": ("Determine", "Work on", "Figure out"),
        "Work out": ("Figure out", "Determine"),
        "Add": ("Do add", "Please add up"),
        "Give": ("Produce", "Get me"),
        "Make": ("Produce", "Get me"),
        "Turn": ("Bring", "Move"),
        "Define": ("Give the meaning of", "Say in a few words what is meant by"),
        "Explain": ("Give the meaning of", "Make clear"),
        "Is": ("Do you think it is so: is",),
        "Does": ("Do you think it is so: does",),
    },
)
JUDGED = Wordings(
    before=(
        "Quick one. ",
        "My request: ",
        "I wonder: ",
        "Be quick. ",
        "Here is something to do. ",
        "Let us see if you know this. ",
        "Up next. ",
        "I have to know this today. ",
    ),
    behind=("Answer at once.", "I am in a hurry.", "Nothing else, please.", "Do you know?", "It is for a friend."),
    behind_greeting=(", old friend", " once more", ", colleague", " and all the best"),
    instead={
        "Find": ("Seek", "See if you can find"),
        "Tell me": ("Report", "I would like to hear"),
        "What is": ("I wonder what is", "Could you say what is"),
        "Which": ("I wonder which", "Could you say which"),
        "Who": ("I wonder who", "Could you say who"),
        "Whose": ("I wonder whose",),
        "How many": ("I wonder how many", "Could you say how many"),
        "How much": ("I wonder how much",),
        "Name": ("Report", "I would like to have"),
        "Look up": ("Seek",),
        "Write": ("Provide", "I would like to have"),
        "Put": ("Set",),
        "Sort": ("Rank",),
        "Calculate": ("Provide", "Try to get"),
        "Compute": ("Provide", "Try to get"),
        "Add": ("Try to add",),
        "Give": ("Provide",),
        "Make": ("Provide",),
        "Turn": ("Transform",),
        "Is": ("I wonder, is",),
        "Does": ("I wonder, does",),
    },
)


def reworded(tasks: Sequence[Task], wordings: Wordings, seed: int) -> list[Task]:
    """Returns ``tasks`` with the last question of each in other words, without the drills, whose whole text is to be
    repeated or worked out. The same for the same seed."""
    draw = random.Random(f"reworded {seed}")
    instead = re.compile(rf"^({'|'.join(sorted(wordings.instead, key=len, reverse=True))})\b", re.MULTILINE)
    return [_reworded(task, wordings, instead, draw) for task in tasks if task.family in FAMILIES]


def _reworded(task: Task, wordings: Wordings, instead: re.Pattern[str], draw: random.Random) -> Task:
    *earlier, last = task.turns
    text, changed = last.content, 0
    if task.family == GREETED and len(text.split()) <= SHORT and not text.endswith("?"):
        text = _greeted(text, wordings, draw)
    else:
        if draw.random() >= PLAIN:
            text, changed = instead.subn(lambda found: draw.choice(wordings.instead[found[1]]), text, count=1)
        if not changed or draw.random() < BOTH:
            text = _framed(text, wordings, draw)
    return replace(task, turns=(*earlier, Turn(last.role, text)))


def _greeted(text: str, wordings: Wordings, draw: random.Random) -> str:
    """Returns a greeting with words behind it, in front of its last sign."""
    said = text.rstrip("!.")
    return said + draw.choice(wordings.behind_greeting) + text[len(said) :]


def _framed(text: str, wordings: Wordings, draw: random.Random) -> str:
    """Returns a question with something before or behind it."""
    if draw.random() < 0.5:
        return draw.choice(wordings.before) + text
    return f"{text}\n{draw.choice(wordings.behind)}"
