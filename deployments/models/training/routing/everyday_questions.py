"""Everyday questions, made from templates: worded like tasks of the curriculum, about things that it does not teach.

The curriculum has definitions ("What is a replica?"), lists and sentences about a few terms, so that the small tiers
know its words and phrasings. Of "What is a bridge?" they know every word but no answer. No noun here is in the open
questions by which ``auto`` is judged (load_tests/quality).
"""

from __future__ import annotations

import random

from deployments.models.training.curriculum.task import Task, Turn
from deployments.models.training.routing.open_prompts import OPEN

TEMPLATES = (
    "What is {a}?",
    "What is {a} for?",
    "What is {a} used for?",
    "What does {a} do?",
    "What does {a} look like?",
    "What do you call someone who has {a}?",
    "What do we call {a} that is old?",
    "What is a small {noun} called?",
    "What does the word {noun} mean?",
    "Define the word {noun}.",
    "Define {noun}.",
    "In one sentence, what is {a}?",
    "Explain what {a} is.",
    "Tell me what {a} is.",
    "Describe {a} in one sentence.",
    "Name three things that {a} needs.",
    "Name one use of {a}.",
    "List four kinds of {plural}.",
    "List three {plural} that you know.",
    "Give two examples of {plural}.",
    "Write one sentence about {a} and {other}.",
    "Write a sentence about {a}.",
    "How many parts does {a} have?",
    "How long does {a} last?",
    "Where would you find {a}?",
    "Why do people like {plural}?",
    "Who would need {a}?",
    "When would you use {a}?",
    "How is {a} different from {other}?",
    "Write the word {noun} backwards.",
    "Which is larger, {a} or {other}?",
    "Can {a} break?",
    "How big is {a}?",
    "How old can {a} be?",
    "What sound does {a} make?",
    "Where does {a} come from?",
    "Which {noun} is the best?",
    "Is {a} alive?",
    "What is the plural of {noun}?",
    "What rhymes with {noun}?",
    "Translate {noun} into French.",
    "What is the French word for {noun}?",
    "Who invented {a}?",
    "How much does {a} cost?",
    "What happens if you drop {a}?",
    "What should I know before I buy {a}?",
    "Tell me a short story about {a}.",
    "Give me some advice about {plural}.",
    "Explain to a child what {a} is.",
    "What can go wrong with {a}?",
    "Why is {a} not {other}?",
    "Finish this sentence: I saw {a} and",
    "Write a title for a text about {plural}.",
    "Do {plural} sleep?",
    "Say something nice about {plural}.",
)
NOUNS = """
bridge ladder kettle blanket garden desert island forest candle mirror pillow basket bottle spoon hammer needle rope
tent boat train engine wheel roof wall floor stairs chimney fence gate barn horse sheep goat rabbit fox wolf bear
tiger elephant monkey snake frog eagle owl duck beetle whale shark salmon oak rose tulip mushroom carrot onion
potato lemon orange grape cherry peach soup salad sandwich cake pilot nurse baker carpenter plumber dentist lawyer
judge soldier sailor painter singer dancer actor engineer chemist museum theatre stadium airport harbour factory
office market pharmacy prison castle palace temple song poem novel diary newspaper painting violin piano drum flute
camera telescope microscope clock coat scarf glove shoe ring necklace suitcase wallet ticket passport stamp coin
festival wedding storm cloud rainbow earthquake comet shadow echo dream promise secret joke habit hobby
"""


def everyday_questions(count: int, seed: int) -> list[Task]:
    """Returns ``count`` different questions. Raises ValueError if the templates do not give as many."""
    random_numbers = random.Random(f"everyday {seed}")
    nouns = NOUNS.split()
    every = [(template, noun) for template in TEMPLATES for noun in nouns]
    if count > len(every):
        raise ValueError(f"there are {len(every)} everyday questions, not {count}")
    return [
        Task(OPEN, 1, (Turn("user", _filled(template, noun, random_numbers.choice(nouns))),), "")
        for template, noun in random_numbers.sample(every, count)
    ]


def _filled(template: str, noun: str, other: str) -> str:
    return template.format(noun=noun, a=_with_article(noun), other=_with_article(other), plural=_plural(noun))


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "h")) else f"{noun}s"
