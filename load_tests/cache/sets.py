"""``python -m load_tests.cache.sets``: the semantic cache's second stage on every test set, and without each rule."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deployments.models.training.pairs import sources
from deployments.models.training.pairs.mix import CALIBRATION, OTHER_TEST, PAWS_TEST, TEST
from deployments.models.training.pairs.pair import Pair
from deployments.models.training.pairs.splits import cut
from load_tests.cache.cosines import Cosines, packaged
from load_tests.cache.figures import at_threshold
from load_tests.cache.opposites import opposites
from load_tests.cache.pair_rows import LabelledPair
from load_tests.cache.stage import Scores, Stage
from load_tests.cache.table import BOUNDS, SetFigures, markdown, set_figures
from router.cache.calibration_table import CalibrationTable
from router.cache.hit_threshold import threshold_for
from router.cache.pair_guard.pair_rules import RULES
from router.cache.pair_guard.parsed_question import parse_question

ROOT: Final = Path(__file__).resolve().parents[2]
NEIGHBOURS: Final = 4
"""Other questions of a FAQ, the nearest by cosine, that each of its paraphrases is compared with."""

DESCRIPTION: Final = """\
Measure the second stage of the semantic cache on the test cuts of the data sets, on generated opposites, and on
paraphrases of a FAQ. Then, on Quora's test cut, what each rule of the guard costs and saves at the threshold for 1 %.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    try:
        cosines = packaged()
        sets = dict(test_sets(options.data, cosines, options.pairs))
        stage = Stage.load(options.model, cosines)
        table = CalibrationTable.read(options.model / "calibration.json")
    except (OSError, ValueError) as error:
        print(f"load_tests.cache.sets: {error}", file=sys.stderr)
        return 2
    thresholds = {bound: threshold_for(table, bound) for bound in BOUNDS}
    scores = {}
    with tqdm(total=sum(map(len, sets.values())), unit="pairs", disable=not sys.stderr.isatty()) as bar:
        for name, pairs in sets.items():
            scores[name] = stage.scores(pairs, bar.update)
    figures = [set_figures(name, each, thresholds) for name, each in scores.items()]
    print(markdown(figures))
    print(recalls(figures[0]))
    print(ablation(sets["quora"], scores["quora"], thresholds[BOUNDS[0]]))
    if options.json:
        options.json.write_text(json.dumps([_plain(each) for each in figures], indent=2) + "\n", encoding="utf-8")
    if options.false_hits:
        write_false_hits(options.false_hits, sets["quora"], scores["quora"], thresholds[BOUNDS[0]])
    return 0


def test_sets(data: Path, cosines: Cosines, most: int) -> Iterator[tuple[str, list[LabelledPair]]]:
    """Yields the sets: of Quora at most ``most`` pairs, of the others a fifth of that. Raises OSError."""
    yield "quora", drawn(cut(sources.quora(data), (CALIBRATION, TEST))[1], most)
    for name, read, share in _OTHERS:
        yield name, drawn(cut(read(data), (share,))[0], most // 5)
    for kind in dict.fromkeys(each.kind for each in opposites()):
        yield f"opposites: {kind}", [each.pair for each in opposites() if each.kind == kind]
    yield "faq paraphrases", faq(data, cosines)


_OTHERS: Final[tuple[tuple[str, Callable[[Path], list[Pair]], float], ...]] = (
    ("cannot_negation", lambda data: sources.labelled(data, "cannot_negation"), OTHER_TEST),
    ("paws", lambda data: sources.labelled(data, "paws"), PAWS_TEST),
    ("contradictions", sources.contradictions, OTHER_TEST),
    ("stsb", sources.similar_sentences, OTHER_TEST),
)


def drawn(pairs: Sequence[Pair], most: int) -> list[LabelledPair]:
    """Returns at most ``most`` of the pairs, evenly spaced."""
    step = max(1, len(pairs) // most)
    return [LabelledPair(pair.text_a, pair.text_b, bool(pair.same)) for pair in pairs[::step][:most]]


def faq(data: Path, cosines: Callable[[Sequence[tuple[str, str]]], NDArray[np.float64]]) -> list[LabelledPair]:
    """The paraphrases of questions of a FAQ on COVID-19: each with its question, and with the others that are nearest
    to it."""
    written: dict[str, str] = json.loads(Path(__file__).with_name("faq_paraphrases.json").read_text(encoding="utf-8"))
    rows = sources.rows(data / "retrieval/covid_faq.jsonl.gz")
    questions = {row["id"].removeprefix("covidfaq-"): str(row["question"]).strip() for row in rows}
    pairs = []
    for number, text in written.items():
        others = [question for key, question in questions.items() if key != number]
        near = np.argsort(-cosines([(text, other) for other in others]))[:NEIGHBOURS]
        pairs.append(LabelledPair(text, questions[number], True))
        pairs += [LabelledPair(text, others[place], False) for place in near]
    return pairs


def recalls(quora: SetFigures) -> str:
    """Returns a line with the recall on Quora's test cut where exactly so many false hits are made."""
    return "; ".join(
        f"recall at {bound:.0%} false hits: {quora.recall[bound]:.3f}, by cosine {quora.cosine_recall[bound]:.3f}"
        for bound in quora.recall
    )


def ablation(pairs: Sequence[LabelledPair], scores: Scores, threshold: float) -> str:
    """Returns a table: of the pairs that are hits without the guard, how many of each kind each rule refuses."""
    hits = np.flatnonzero(scores.score >= threshold).tolist()
    same, different = int(scores.same.sum()), int((~scores.same).sum())
    lines = ["| rule | same pairs lost | different pairs kept out |", "| --- | --- | --- |"]
    for name, rule in RULES.items():
        refused = [at for at in hits if rule(parse_question(pairs[at].text_a), parse_question(pairs[at].text_b))]
        lost = sum(bool(scores.same[at]) for at in refused)
        lines.append(f"| {name} | {lost} of {same:,} | {len(refused) - lost} of {different:,} |")
    free, guarded = (at_threshold(each, scores.same, threshold) for each in (scores.score, scores.guarded))
    return "\n".join([*lines, f"without the guard {free}, with it {guarded}"])


def write_false_hits(path: Path, pairs: Sequence[LabelledPair], scores: Scores, threshold: float) -> None:
    """Writes the different pairs that are hits, for a reader."""
    places = np.flatnonzero((scores.guarded >= threshold) & ~scores.same).tolist()
    rows = [{"text_a": pairs[at].text_a, "text_b": pairs[at].text_b, "score": float(scores.score[at])} for at in places]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _plain(figures: SetFigures) -> Mapping[str, object]:
    def bare(value: object) -> object:
        if isinstance(value, Mapping):
            return {str(key): bare(each) for key, each in value.items()}
        return value._asdict() if hasattr(value, "_asdict") else value

    return {name: bare(value) for name, value in figures._asdict().items()}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.cache.sets",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="the data sets")
    parser.add_argument("--model", type=Path, default=ROOT / "deployments" / "models" / "cache_pairs")
    parser.add_argument("--pairs", type=int, default=4000, help="of Quora, at most; of other sets a fifth")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--false-hits", type=Path, help="write the false hits on Quora's test cut to this file")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
