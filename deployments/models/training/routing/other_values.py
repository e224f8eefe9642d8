"""Tasks of the curriculum about other names and things than training ever had.

People ask about names that no training text has. The smaller a tier is, the more often it copies such a name wrongly.
The answer to a task of these families repeats names or does not depend on them, so that both can be exchanged together.

The new words come in two halves: the forecaster is fitted to one, and judged by the other.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from deployments.models.training.curriculum import words
from deployments.models.training.curriculum.task import Task, Turn

EXCHANGED = frozenset({"extraction", "word problems", "tables", "format", "reference"})  # families
BY_LETTERS = re.compile(r"alphabet|letter|longest|shortest|length|sort|order|first|last|begin|start|end", re.IGNORECASE)
"""What is asked depends on how a word is written, or on its place among others."""
WORD = re.compile(r"[^\W\d_]+")
Values = Mapping[tuple[str, ...], tuple[str, ...]]  # new words by the old ones

FITTED_VALUES: Values = {
    words.NAMES: words.split(
        "Abigail Alfred Beatrice Cedric Cornelia Dorothy Edgar Esther Felicity Gilbert Harriet Howard Irene Jasper "
        "Keith Lydia Malcolm Miriam Norman Patrick"
    ),
    words.SURNAMES: words.split(
        "Abbott Barnes Coleman Dawson Ellis Fletcher Griffin Hughes Jacobs Knight Lambert Mason"
    ),
    words.CITIES: words.split(
        "Antwerp Bristol Calgary Dallas Edinburgh Florence Glasgow Hamburg Jerusalem Krakow Leeds Marseille "
        "Nantes Odessa"
    ),
    words.JOBS: words.split("archer astronaut broker clown courier detective diver fisherman florist hunter janitor"),
    words.ITEMS: words.split("pebbles spoons lanterns kites anchors barrels ropes plates feathers scarves"),
    words.DRINKS: words.split("cola champagne gin sherry whisky smoothie"),
    words.PETS: words.split("canary ferret gecko piglet donkey lamb"),
    words.SPORTS: words.split("archery baseball curling diving handball karate"),
}
JUDGED_VALUES: Values = {
    words.NAMES: words.split(
        "Quentin Rebecca Rupert Sylvia Timothy Ursula Vincent Winifred Xavier Agatha Bernard Claudia Dominic Eleanor "
        "Francis Gloria Herbert Isabel Justin Lorraine"
    ),
    words.SURNAMES: words.split("Nash Osborne Palmer Quinn Robbins Shaw Tucker Underwood Vaughn Watson Yates Zimmer"),
    words.CITIES: words.split(
        "Palermo Rotterdam Salzburg Trieste Uppsala Valencia Winnipeg Yerevan Adelaide Bilbao Cologne Dresden "
        "Exeter Gdansk"
    ),
    words.JOBS: words.split("optician porter ranger referee sculptor smuggler surgeon typist vet waiter warden"),
    words.ITEMS: words.split("nuts carrots hats bricks postcards whistles jewels needles spades towels"),
    words.DRINKS: words.split("punch rum port brandy beer vodka"),
    words.PETS: words.split("hedgehog rat tortoise swan llama spider"),
    words.SPORTS: words.split("lacrosse netball polo sailing sumo surfing"),
}


def with_other_values(tasks: Sequence[Task], values: Values, seed: int) -> list[Task]:
    """Returns those of ``tasks`` whose names and things can be exchanged, with others. The same for the same seed."""
    draw = random.Random(f"other values {seed}")
    changed = (_exchanged(task, values, draw) for task in tasks if task.family in EXCHANGED)
    return [task for task in changed if task is not None]


def _exchanged(task: Task, values: Values, draw: random.Random) -> Task | None:
    """Returns ``task`` with other values; None if it has none of the old ones or asks how they are written."""
    if any(BY_LETTERS.search(turn.content) for turn in task.turns):
        return None
    said = " ".join([*(turn.content for turn in task.turns), task.answer, task.working])
    present = list(dict.fromkeys(WORD.findall(said)))
    other: dict[str, str] = {}
    for old, new in values.items():
        found = [word for word in present if word in old and word not in other]
        if len(found) > len(new):
            return None
        other.update(zip(found, draw.sample(new, len(found)), strict=True))
    if not other:
        return None
    other.update({old.lower(): new.lower() for old, new in other.items() if old.istitle()})  # in e-mail addresses

    def put(text: str) -> str:
        return WORD.sub(lambda match: other.get(match[0], match[0]), text)

    turns = tuple(Turn(turn.role, put(turn.content)) for turn in task.turns)
    return replace(task, turns=turns, answer=put(task.answer), working=put(task.working))
