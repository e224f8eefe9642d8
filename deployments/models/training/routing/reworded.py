"""Tasks of the curriculum in other words, as people ask who do not know its phrasings.

A tier is right more often where it has seen a phrasing, and the smaller it is the more it depends on that. A forecaster
that is fitted to the curriculum's own phrasings alone expects too much of the small tiers. What is asked for stays the
same, and so does the answer. Of what is written here nothing is in the held-out set.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from deployments.models.training.curriculum.task import Task, Turn

BEFORE = (
    "Could you help? ",
    "This is what I want: ",
    "Quick one. ",
    "Dear model, ",
    "My request: ",
    "Now then: ",
    "I wonder: ",
    "Can you do that? ",
    "Be exact. ",
    "For my work: ",
)
FIRST_WORDS = {
    "Find": ("Look for", "Seek", "Determine"),
    "Tell me": ("Share", "Provide", "Let me know"),
    "What is": ("Provide", "I wonder what is", "Do you know"),
    "Which": ("I wonder which", "Do you know which"),
    "Who": ("I wonder who", "Do you know who"),
    "Whose": ("I wonder whose", "Do you know whose"),
    "How many": ("I wonder how many", "Determine how many"),
    "How much": ("I wonder how much", "Determine how much"),
    "Name": ("Mention", "Share"),
    "Look up": ("Look for", "Seek"),
    "Write": ("Produce", "Provide"),
    "Put": ("Bring",),
    "Sort": ("Rank",),
    "Calculate": ("Determine", "Provide"),
    "Compute": ("Determine", "Provide"),
    "Add": ("Do add",),
    "Give": ("Produce", "Provide"),
    "Make": ("Produce",),
    "Turn": ("Bring",),
    "Is": ("I wonder, is",),
    "Are": ("I wonder, are",),
}
_FIRST = re.compile(rf"^({'|'.join(sorted(FIRST_WORDS, key=len, reverse=True))})\b", re.MULTILINE)
PLAIN = 0.25  # of the tasks only get something in front


def reworded(tasks: Sequence[Task], seed: int) -> list[Task]:
    """Returns ``tasks`` with the last question of each in other words. The same for the same seed."""
    draw = random.Random(f"reworded {seed}")
    return [_reworded(task, draw) for task in tasks]


def _reworded(task: Task, draw: random.Random) -> Task:
    *earlier, last = task.turns
    text, changed = last.content, 0
    if draw.random() >= PLAIN:
        text, changed = _FIRST.subn(lambda found: draw.choice(FIRST_WORDS[found[1]]), text, count=1)
    if not changed or draw.random() < 0.3:
        text = draw.choice(BEFORE) + text
    return replace(task, turns=(*earlier, Turn(last.role, text)))
