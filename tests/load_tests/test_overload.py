"""The load test of overload: what it offers, and what it counts as in time, refused or failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from load_tests.generator.answer import Answer, Problem
from load_tests.generator.target import Target
from load_tests.overload.__main__ import main, make_parser
from load_tests.overload.p99_ratio import main as compare
from load_tests.overload.p99_ratio import p99_ratio
from load_tests.overload.traffic import CLASSES, Offered, mixed, request_bytes
from load_tests.overload.trial import Outcome, figures_of, outcome_of
from load_tests.simulation.profile import PROFILES

INTERACTIVE, STANDARD, BATCH = CLASSES


def offered(at: float = 0.0, traffic: object = INTERACTIVE) -> Offered:
    assert traffic in CLASSES
    return Offered(at, "one", next(each for each in CLASSES if each is traffic), 10, 20)


def test_the_load_is_open_and_has_all_classes_in_their_parts() -> None:
    requests = list(mixed(100.0, 60.0, seed=3))

    assert len(requests) == pytest.approx(6000, rel=0.05)
    assert [one.at for one in requests] == sorted(one.at for one in requests)
    for traffic in CLASSES:
        part = sum(one.traffic is traffic for one in requests) / len(requests)
        assert part == pytest.approx(traffic.share, abs=0.03)
    assert requests == list(mixed(100.0, 60.0, seed=3)), "the same load with and without admission"


def test_prompts_of_different_requests_begin_differently() -> None:
    target = Target.of("http://127.0.0.1:1/v1", "key")
    bodies = {request_bytes(target, offered(at)).split(b"content")[1][:60] for at in range(20)}

    assert len(bodies) > 15


def test_time_begins_when_a_request_was_to_be_sent() -> None:
    answer = Answer(0, started=5.5, ended=9.0, times=[6.0, 7.0])

    assert outcome_of(offered(at=3.0), answer, begin=2.0).ttft_s == pytest.approx(1.0)


def test_refusals_are_no_failures_and_other_ends_are() -> None:
    refused, broken = Answer(0, 0.0, ended=0.25), Answer(0, 0.0, ended=0.25)
    refused.fail(Problem.STATUS, '429 {"error": {}}')
    broken.fail(Problem.STATUS, "503 {}")

    assert outcome_of(offered(), refused, 0.0) == Outcome(offered(), refused_s=0.25)
    assert outcome_of(offered(), broken, 0.0).problem.startswith("status 503")


@pytest.mark.parametrize(("status", "failed"), [("429", 0), ("503", 1)])
@pytest.mark.parametrize(("ended", "late"), [(0.25, 0), (61.0, 1)])
def test_what_is_refused_after_it_was_admitted_is_late_whatever_its_status(
    status: str, failed: int, ended: float, late: int
) -> None:
    answer = Answer(0, 0.0, ended=ended)
    answer.fail(Problem.STATUS, f"{status} {{}}")

    figures = figures_of([outcome_of(offered(), answer, 0.0)], 1.0)

    assert (figures.refused_late, figures.failed) == (late, failed)


def test_goodput_is_what_came_whole_and_in_time() -> None:
    outcomes = [
        Outcome(offered(), ttft_s=0.5),
        Outcome(offered(), ttft_s=1.5),
        Outcome(offered(traffic=STANDARD), ttft_s=3.0),
        Outcome(offered(traffic=BATCH), ttft_s=30.0),
        Outcome(offered(), ttft_s=0.1, problem="truncated"),
        Outcome(offered(), refused_s=0.01),
        Outcome(offered(), refused_s=2.0),
    ]
    figures = figures_of(outcomes, 2.0)

    assert figures.goodput == 1.5
    assert figures.goodput_by_class == {"interactive": 0.5, "standard": 0.5, "batch": 0.5}
    assert figures.ttft_p99_by_class["interactive"] == 1.5
    assert (figures.admitted, figures.refused, figures.refused_late, figures.failed) == (5, 2, 1, 1)
    assert figures.refusal_p99_s == 2.0


def test_a_stretched_engine_is_that_of_a_server() -> None:
    options = make_parser().parse_args(["--stretched"])

    assert PROFILES[options.stretched].name == "70b-h100x2"
    assert make_parser().parse_args([]).stretched is None
    with pytest.raises(SystemExit):
        main(["--simulated", "--stretched"])


def test_the_ratio_of_two_p99s_says_how_sure_it_is() -> None:
    alone = [0.01 * number for number in range(1, 101)]
    ratio = p99_ratio(alone, [2 * wait for wait in alone])

    assert ratio.times == pytest.approx(2.0)
    assert ratio.interval[0] < 2.0 <= ratio.interval[1]
    assert ratio.by_chance[0] < 1.0 < ratio.by_chance[1]
    few = p99_ratio(alone[::10], alone[::10])
    assert few.by_chance[1] - few.by_chance[0] > ratio.by_chance[1] - ratio.by_chance[0], "fewer requests say less"
    with pytest.raises(ValueError):
        p99_ratio([], alone)


def test_the_ratio_is_that_of_all_runs_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, beside in enumerate(([0.2] * 99, [0.4] * 5)):
        run = {"alone": {"waits_s": [0.2] * len(beside)}, "with admission": {"waits_s": beside}}
        (tmp_path / f"{number}.json").write_text(json.dumps({"tenant": run}))

    assert compare([str(path) for path in tmp_path.iterdir()]) == 0
    assert "P99 TTFT 2.00 x that without the flood (104 requests" in capsys.readouterr().out
