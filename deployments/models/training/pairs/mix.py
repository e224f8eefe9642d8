"""The training mix: data sets and rules, without near-duplicates of what is kept for calibration and tests."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deployments.models.training.pairs import sources, written
from deployments.models.training.pairs.edits import (
    NAME,
    WORD,
    Edit,
    NameSwaps,
    WordSwaps,
    edit_direction,
    edit_family,
    edit_negation,
    edit_number,
    edit_opposite,
    exchange_words,
)
from deployments.models.training.pairs.frames import Frames
from deployments.models.training.pairs.pair import Pair, normal
from deployments.models.training.pairs.requests import RULES
from deployments.models.training.pairs.retyped import retyped
from deployments.models.training.pairs.splits import cut, without_near_duplicates
from deployments.models.training.pairs.transitive import transitive

CALIBRATION, TEST = 0.175, 0.065  # of the components of Quora questions
OTHER_TEST = 0.15  # of the components of the other labelled sets
PAWS_TEST = 0.3
WRITTEN_TEST = 0.15  # of the domains
MAX_CHARACTERS = 300  # of both texts of a pair from a data set
MIN_NAME = 3  # occurrences of a name that is put in the place of others


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many pairs a part of the mix has at most."""

    quora: int = 46_000
    transitive: int = 10_000
    written: int = 7_500
    opposites: int = 7_500
    paws: int = 700
    contradictions: int = 4_000
    one_sided: int = 1_000
    disfluent: int = 1_200
    similar: int = 1_500
    neighbours: int = 900
    edits: int = 12_000
    edited_alike: int = 2_000
    exchanged: int = 2_400
    instructions: int = 1_800
    requests: int = 12_000
    retyped: int = 2_800
    identical: int = 400

    def scaled(self, share: float) -> Sizes:
        """Returns a share of each size, for a short run that would not see most of a larger mix."""
        return Sizes(**{name: round(share * size) for name, size in asdict(self).items()})


@dataclass(frozen=True, slots=True)
class Mix:
    """``calibration``: Quora pairs that neither training nor tests have seen. ``tests``: by data set."""

    training: list[Pair]
    calibration: list[Pair]
    tests: dict[str, list[Pair]]


def read_mix(data: Path, seed: int, sizes: Sizes | None = None) -> Mix:
    """Reads the sets in ``data`` and draws the rules. Raises OSError."""
    sizes = sizes or Sizes()
    rng = random.Random(f"mix {seed}")
    calibration, test, quora = cut(sources.quora(data), (CALIBRATION, TEST))
    tests, drawn = {"quora": test}, some(quora, sizes.quora, rng)
    for name, pairs, share, limit in (
        ("cannot_negation", sources.labelled(data, "cannot_negation"), OTHER_TEST, sizes.opposites),
        ("paws", sources.labelled(data, "paws"), PAWS_TEST, sizes.paws),
        ("contradictions", sources.contradictions(data), OTHER_TEST, sizes.contradictions),
        ("one_sided", sources.one_sided(data), OTHER_TEST, sizes.one_sided),
        ("stsb", sources.similar_sentences(data), OTHER_TEST, sizes.similar),
        ("disfl_qa", sources.labelled(data, "disfl_qa_train"), OTHER_TEST, sizes.disfluent),
    ):
        tests[name], rest = cut(pairs, (share,))
        drawn += some(rest, limit, rng)
    drawn += some(sources.neighbours(data), sizes.neighbours, rng)
    kept, groups = written.cut_by_domain(written.groups(), WRITTEN_TEST)
    tests[written.SOURCE] = [pair for group in kept for pair in written.pairs_of(group, rng)]
    drawn += written.drawn(groups, sizes.written, rng)
    drawn += transitive(quora, "quora transitive", sizes.transitive, rng)
    apart = [*calibration, *(pair for pairs in tests.values() for pair in pairs)]
    clean = without_near_duplicates(drawn, apart)
    made = rules(clean, sources.instructions(data), seed, sizes)
    training = [*clean, *made]
    rng.shuffle(training)
    return Mix(training, calibration, tests)


def some(pairs: Sequence[Pair], limit: int, rng: random.Random) -> list[Pair]:
    """Draws at most ``limit`` of the pairs that are short enough to be worth their time."""
    short = [pair for pair in pairs if len(pair.text_a) + len(pair.text_b) <= MAX_CHARACTERS]
    return rng.sample(short, min(limit, len(short)))


def rules(pairs: Sequence[Pair], instructions: Sequence[str], seed: int, sizes: Sizes) -> list[Pair]:
    """Draws all rules over the training pairs and the requests to an assistant."""
    rng = random.Random(f"rules {seed}")
    quora = [pair for pair in pairs if pair.source == "quora"]
    swaps = WordSwaps(one_word_swaps(pairs))
    edits: dict[str, tuple[Edit, int]] = {
        "number": (edit_number, 3),
        "family": (edit_family, 5),
        "opposite": (edit_opposite, 5),
        "negation": (edit_negation, 4),
        "direction": (edit_direction, 2),
        "name": (NameSwaps(names(quora)), 4),
        "word": (swaps, 3),
    }
    total = sum(weight for _, weight in edits.values())
    made = []
    for name, (edit, weight) in edits.items():
        made += edited(quora, edit, f"edit {name}", round(sizes.edits * weight / total), rng)
        if name not in ("direction", "word"):
            made += edited_alike(quora, edit, f"alike {name}", round(sizes.edited_alike * weight / total), rng)
    sentences = [
        pair for pair in pairs if pair.source in ("wikifactcheck", "conjnli_adversarial_train", "quora", "paws")
    ]
    made += edited(sentences, exchange_words, "exchanged words", sizes.exchanged, rng)
    asked = [Pair(text, text, 1, "instruction") for text in instructions]
    for edit in (edit_number, edit_family, edit_opposite):
        made += edited(asked, edit, "edit instruction", sizes.instructions // 3, rng)
    chosen = rng.sample(instructions, min(len(instructions), sizes.instructions // 2))
    made += [Pair(text, retyped(text, rng), 1, "retyped instruction") for text in chosen]
    made += requests(sizes.requests, rng)
    texts = [rng.choice((pair.text_a, pair.text_b)) for pair in rng.sample(quora, min(len(quora), sizes.retyped))]
    made += [Pair(text, retyped(text, rng), 1, "retyped") for text in texts]
    return made + [Pair(text, text, 1, "identical") for text in rng.sample(texts, min(len(texts), sizes.identical))]


def names(pairs: Sequence[Pair]) -> list[str]:
    """The names that the questions mention, as often as the square root of their count."""
    counts = Counter(name for pair in pairs for text in (pair.text_a, pair.text_b) for name in NAME.findall(text))
    return [name for name, count in counts.items() if count >= MIN_NAME for _ in range(round(count**0.5))]


def one_word_swaps(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """The words that alone tell two contradicting sentences apart."""
    swaps = defaultdict(list)
    for pair in pairs:
        if pair.same or pair.source == "quora":
            continue
        one, other = WORD.findall(pair.text_a), WORD.findall(pair.text_b)
        changed = [(a, b) for a, b in zip(one, other, strict=False) if a != b]
        if len(one) == len(other) and len(changed) == 1 and min(len(changed[0][0]), len(changed[0][1])) > 3:
            ((first, second),) = changed
            swaps[first].append(second)
            swaps[second].append(first)
    return dict(swaps)


def edited(pairs: Sequence[Pair], edit: Edit, source: str, limit: int, rng: random.Random) -> list[Pair]:
    """Pairs of a question with its edit: half against itself, half against another wording of it where there is one."""
    made: list[Pair] = []
    for pair in rng.sample(pairs, len(pairs)):
        if len(made) == limit:
            break
        text, again = rng.choice(((pair.text_a, pair.text_b), (pair.text_b, pair.text_a)))
        changed = edit(text, rng)
        if changed and normal(changed) != normal(text):
            against = again if pair.same and rng.random() < 0.5 and normal(again) != normal(changed) else text
            if rng.random() < 0.15:
                changed = retyped(changed, rng)
            made.append(Pair(against, changed, 0, source))
    return made


def edited_alike(pairs: Sequence[Pair], edit: Edit, source: str, limit: int, rng: random.Random) -> list[Pair]:
    """Pairs that stay the same because both sides were edited alike."""
    made: list[Pair] = []
    for pair in rng.sample(pairs, len(pairs)):
        if len(made) == limit:
            break
        if not pair.same:
            continue
        draw = rng.random()
        one, other = (edit(text, random.Random(f"{draw}")) for text in (pair.text_a, pair.text_b))
        if one and other and changed_words(pair.text_a, one) == changed_words(pair.text_b, other):
            made.append(Pair(one, other, 1, source))
    return made


def changed_words(before: str, after: str) -> tuple[Counter[str], Counter[str]]:
    """The words that an edit took away, and those that it put in."""
    old, new = Counter(normal(before).split()), Counter(normal(after).split())
    return old - new, new - old


def requests(limit: int, rng: random.Random) -> list[Pair]:
    """Pairs of RULES: of each request one that is the same, and one or two that are not."""
    draw, made = Frames(rng), list[Pair]()
    while len(made) < limit:
        rule = rng.choice(RULES)
        request = rule(draw)
        name = f"request {rule.__name__}"
        if normal(request.said) != normal(request.again):
            made.append(Pair(request.said, request.again, 1, name))
        others = [
            other for other in request.others if normal(other) not in (normal(request.said), normal(request.again))
        ]
        drawn = rng.sample(others, min(len(others), 2 if rng.random() < 0.35 else 1))
        made += [Pair(rng.choice((request.said, request.again)), other, 0, name) for other in drawn]
    return made[:limit]
