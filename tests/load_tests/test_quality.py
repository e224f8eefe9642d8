"""The evaluation counts what is right, through an engine, and sees when a model has become worse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from scipy import stats

from deployments.models.training.curriculum.task import FAMILIES, LEVELS
from engine.api import Message
from engine.engine import Engine
from load_tests.quality.__main__ import main
from load_tests.quality.baseline import Baseline, SetBaseline, dump, make_baseline, read_baseline
from load_tests.quality.change import OVERALL, Change, changes
from load_tests.quality.item import HeldOut, Item, read_held_out
from load_tests.quality.offline import ask_engine
from load_tests.quality.outcome import Outcome, Reply
from load_tests.quality.plot import draw
from load_tests.quality.question import stratified
from load_tests.quality.score import Score, clustered_error, reports
from load_tests.quality.set_run import SetRun
from load_tests.quality.size import parameters

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "deployments" / "models"
REAL = MODELS / "training" / "heldout.jsonl"
MAX_TOKENS = 8


def write_items(path: Path, items: Sequence[Item]) -> HeldOut:
    """A held-out file with ``items``."""
    path.write_text("".join(json.dumps(asdict(item)) + "\n" for item in items), encoding="utf-8")
    return read_held_out(path)


def item(name: str, family: str = "arithmetic", level: int = 1, answer: str = "5") -> Item:
    return Item(name, family, level, (Message("user", "What is 2 + 3?"),), answer)


def outcomes(items: Sequence[Item], right: int, model: str = "fast") -> list[Outcome]:
    """The first ``right`` of ``items`` right, the others wrong, at ten tokens each."""
    return [
        Outcome(
            model, one, Reply(text=one.answer if i < right else "?", tier="fast", prompt_tokens=7, completion_tokens=3)
        )
        for i, one in enumerate(items)
    ]


@pytest.fixture(name="known", scope="module")
def _known(tmp_path_factory: pytest.TempPathFactory) -> HeldOut:
    """An item of each family and level, whose right answers are what ``fast`` says: it knows everything."""
    items = stratified(read_held_out(REAL).items, 1)
    engine = Engine.from_pretrained(MODELS / "fast")
    said = ask_engine(engine, "fast", items, MAX_TOKENS, lambda: None)
    path = tmp_path_factory.mktemp("set") / "known.jsonl"
    return write_items(
        path, [replace(i, answer=o.reply.text.rpartition("Answer:")[2]) for i, o in zip(items, said, strict=True)]
    )


def tasks_run(held_out: HeldOut, *runs: list[Outcome], max_tokens: int = 96) -> SetRun:
    """The set ``tasks``, as it came back."""
    return SetRun("tasks", held_out, max_tokens, tuple(outcome for run in runs for outcome in run))


def tasks(baseline: Baseline) -> SetBaseline:
    return baseline.sets["tasks"]


def evaluate(held_out: HeldOut, *arguments: str, models_dir: Path = MODELS) -> int:
    """The command, on ``fast`` in this process."""
    common = ["--engine", "--models=fast", f"--models-dir={models_dir}", f"--set={held_out.path}", "--no-progress"]
    return main([*common, f"--max-tokens={MAX_TOKENS}", *arguments])


# --- the set


def test_the_set_in_git_has_every_family_at_every_level() -> None:
    held_out = read_held_out(REAL)

    assert {(one.family, one.level) for one in held_out.items} == {(f, level) for f in FAMILIES for level in LEVELS}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '{"id": "a"}',
        '{"id": "a", "family": "f", "level": 1, "messages": [], "answer": "x"}',
        '{"id": "a", "family": "f", "level": 1, "messages": [{"role": "assistant", "content": "x"}], "answer": "x"}',
        '{"id": "a", "family": "f", "level": 1, "messages": [{"role": "tool", "content": "x"}], "answer": "x"}',
    ],
)
def test_a_line_that_is_no_item_is_refused_with_its_number(line: str, tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps(asdict(item("good"))) + "\n" + line + "\n")

    with pytest.raises(ValueError, match=r"set\.jsonl:2 "):
        read_held_out(path)


def test_an_id_used_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="several items called twice"):
        write_items(tmp_path / "set.jsonl", [item("twice"), item("twice")])


def test_a_subset_has_as_many_of_each_cell_and_lies_within_larger_ones() -> None:
    items = read_held_out(REAL).items

    small, large = stratified(items, 2), stratified(items, 5)

    assert len(small) == 2 * len(FAMILIES) * len(LEVELS)
    assert set(small) < set(large) < set(items)


# --- figures


def test_a_request_that_failed_is_wrong_whatever_the_answer() -> None:
    assert not Outcome("fast", item("a", answer=""), Reply(problem="APITimeoutError")).right
    assert Outcome("fast", item("a", answer=""), Reply(text=" ")).right


def test_the_answer_after_the_working_counts() -> None:
    assert Outcome("fast", item("a"), Reply(text="2 + 3 = 5\nAnswer: 5")).right
    assert not Outcome("fast", item("a"), Reply(text="5 is what I say")).right


def test_the_interval_is_wilsons() -> None:
    for right, asked in [(0, 10), (7, 10), (610, 900)]:
        ours = Score(right, asked).interval
        theirs = stats.binomtest(right, asked).proportion_ci(method="wilson")

        assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-4)


def test_the_error_of_clusters_is_the_plain_one_for_clusters_of_one_and_larger_for_marks_that_agree() -> None:
    marks = [True, False, True, True]

    alone = clustered_error([[mark] for mark in marks])
    doubled = clustered_error([[mark, mark] for mark in marks])

    assert alone == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    assert doubled == pytest.approx(alone)
    assert clustered_error([[mark] for mark in marks * 2]) < doubled


@pytest.mark.parametrize("tier", ["fast", "balanced", "frontier"])
def test_parameters_are_counted_without_loading_the_weights(tier: str) -> None:
    tensors = load_file(MODELS / tier / "model.safetensors")

    assert parameters(MODELS / tier) == sum(tensor.numel() for tensor in tensors.values())


def test_compute_is_tokens_times_parameters_of_the_tier_that_answered() -> None:
    asked = [item("a"), item("b")]
    auto = [replace(o, model="auto") for o in outcomes(asked, 2)]
    auto[1] = replace(auto[1], reply=replace(auto[1].reply, tier="frontier"))

    known, unknown = reports(auto, {"fast": 100, "frontier": 1000}), reports(auto, {"fast": 100})

    assert known[0].compute == 10 * 100 + 10 * 1000
    assert known[0].tiers == {"fast": 1, "frontier": 1}
    assert unknown[0].compute is None


def test_the_picture_is_drawn_even_where_a_family_lacks_a_level(tmp_path: Path) -> None:
    asked = [item("a"), item("b", "tables", 2), item("c", "tables", 3)]

    draw(reports(outcomes(asked, 2) + outcomes(asked, 1, "auto"), {}), tmp_path / "deep" / "run.png")

    assert (tmp_path / "deep" / "run.png").read_bytes().startswith(b"\x89PNG")


# --- the baseline


@pytest.mark.parametrize(
    ("asked", "lost", "gained", "fell"),
    [
        (900, 18, 0, False),  # 2 points exactly
        (900, 19, 0, True),
        (900, 60, 45, False),  # many flips, but they balance
        (60, 2, 0, False),  # 3.3 points, but only two items
        (60, 3, 0, True),
    ],
)
def test_a_fall_is_a_net_loss_beyond_tolerance(asked: int, lost: int, gained: int, fell: bool) -> None:
    assert Change("fast", OVERALL, asked, asked // 2, lost, gained).fell == fell


def test_a_family_may_move_further_than_the_whole() -> None:
    assert not Change("fast", "tables", 90, 50, lost=7, gained=0).fell
    assert Change("fast", "tables", 90, 50, lost=8, gained=0).fell


def test_chance_is_mcnemars_exact_test() -> None:
    for lost, gained in [(0, 0), (1, 0), (12, 3), (40, 41), (900, 1100)]:
        theirs = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0

        assert Change("fast", OVERALL, 5000, 2500, lost, gained).chance == pytest.approx(theirs)


def test_a_subset_is_compared_on_its_own_items(tmp_path: Path) -> None:
    asked = [item(f"{family}-{i}", family) for family in ("arithmetic", "tables") for i in range(20)]
    held_out = write_items(tmp_path / "set.jsonl", asked)
    baseline = tasks(make_baseline([tasks_run(held_out, outcomes(asked, 30))]))
    part = asked[25:]  # of which the first five were right

    by_part = {c.part: c for c in changes(outcomes(part, 1), {"fast": baseline.marks("fast", held_out)})}

    assert by_part == {part: Change("fast", part, asked=15, before=5, lost=4, gained=0) for part in (OVERALL, "tables")}
    assert by_part[OVERALL].fell


def test_tiers_that_did_not_run_keep_their_baseline_if_the_set_is_the_same(tmp_path: Path) -> None:
    asked = [item("a"), item("b")]
    held_out = write_items(tmp_path / "set.jsonl", asked)
    first = make_baseline([tasks_run(held_out, outcomes(asked, 1))])

    both = make_baseline([tasks_run(held_out, outcomes(asked, 2, "frontier"))], first)
    longer = make_baseline([tasks_run(held_out, outcomes(asked, 2, "frontier"), max_tokens=128)], first)

    assert tasks(both).tiers.keys() == {"fast", "frontier"}
    assert tasks(longer).tiers.keys() == {"frontier"}
    assert tasks(both).tiers["fast"].right == "10"


def test_sets_that_did_not_run_keep_their_baseline(tmp_path: Path) -> None:
    asked = [item("a"), item("b")]
    held_out = write_items(tmp_path / "set.jsonl", asked)
    first = make_baseline([tasks_run(held_out, outcomes(asked, 1))])

    both = make_baseline([SetRun("open", held_out, 160, tuple(outcomes(asked, 2)))], first)

    assert both.sets["tasks"] == first.sets["tasks"]
    assert both.sets["open"].tiers["fast"].right == "11"


def test_a_baseline_is_made_of_complete_runs_only(tmp_path: Path) -> None:
    asked = [item("a"), item("b")]
    held_out = write_items(tmp_path / "set.jsonl", asked)
    failed = [*outcomes(asked[:1], 1), Outcome("fast", asked[1], Reply(problem="APITimeoutError"))]

    with pytest.raises(ValueError, match="not asked every item"):
        make_baseline([tasks_run(held_out, outcomes(asked[:1], 1))])
    with pytest.raises(ValueError, match="failed"):
        make_baseline([tasks_run(held_out, failed)])


# --- the command, with a real engine


def test_a_model_holds_its_own_baseline_and_a_lowered_one_falls(
    known: HeldOut, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, result = tmp_path / "quality.json", tmp_path / "run.json"

    assert evaluate(known, f"--write-baseline={path}", f"--json={result}") == 0
    everything_right = tasks(read_baseline(path)).tiers["fast"].overall == 1.0
    rows = json.loads(result.read_text())["sets"]["tasks"]["rows"]
    assert evaluate(known, f"--baseline={path}", "--limit=1") == 0

    # The answers of four items change, and with them what is right; the hash is made to match.
    wrong = [replace(one, answer="no") for one in known.items[:4]]
    worse = write_items(tmp_path / "worse.jsonl", [*wrong, *known.items[4:]])
    lowered = tasks(read_baseline(path)).model_copy(update={"sha256": worse.sha256})
    path.write_text(dump(Baseline(sets={"tasks": lowered})))
    capsys.readouterr()

    assert evaluate(worse, f"--baseline={path}") == 1
    assert everything_right
    assert [row["id"] for row in rows] == [one.id for one in known.items]
    assert all(row["right"] and row["tier"] == "fast" and row["completion_tokens"] > 0 for row in rows)
    assert "FELL  tasks, fast, overall: 100.0 % -> 86.7 % of 30 (4 lost, 0 gained" in capsys.readouterr().out


def test_a_baseline_of_another_set_is_no_measure(known: HeldOut, tmp_path: Path) -> None:
    asked = [item("a")]
    other = write_items(tmp_path / "other.jsonl", asked)
    (tmp_path / "quality.json").write_text(
        dump(make_baseline([tasks_run(other, outcomes(asked, 1), max_tokens=MAX_TOKENS)]))
    )

    with pytest.raises(SystemExit, match="2"):
        evaluate(known, f"--baseline={tmp_path / 'quality.json'}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--set=nowhere.jsonl"],
        ["--baseline=nowhere.json"],
        ["--models=fast,fast"],
        ["--models=auto"],
        ["--models=colossal"],
        ["--limit=0"],
        ["--limit=3", "--write-baseline=quality.json"],
        ["--sets", "tasks", "tasks"],
        ["--sets", "ifeval"],
        ["--sets", "ifeval", "--ifeval=nowhere.jsonl.gz"],
        ["--sets", "open", "--open=nowhere.jsonl"],
        ["--sets", "open", f"--open={ROOT / 'load_tests/quality/open_questions.jsonl'}", "--plot=run.png"],
        ["--url=http://127.0.0.1:1"],
    ],
)
def test_what_cannot_be_run_ends_with_2_before_anything_is_asked(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit, match="2"):
        main(["--engine", f"--models-dir={MODELS}", f"--set={REAL}", *arguments])

    assert "error: " in capsys.readouterr().err


def test_an_item_that_does_not_fit_fails_alone(tmp_path: Path) -> None:
    long = replace(item("long"), messages=(Message("user", "word " * 3000),))
    engine = Engine.from_pretrained(MODELS / "fast")

    first, second = ask_engine(engine, "fast", [long, item("short")], 4, lambda: None)

    assert first.reply.problem is not None
    assert not first.right
    assert second.reply.problem is None
