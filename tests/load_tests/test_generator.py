"""The generator sees through every way in which a server may answer badly, and measures those that answer well."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from load_tests.generator.__main__ import main
from load_tests.generator.options import LoadOptions
from load_tests.generator.plot import draw
from load_tests.generator.prompts import builtin_prompts, read_prompts
from load_tests.generator.report import table
from load_tests.generator.session import Session, run
from load_tests.generator.target import Target
from tests.load_tests.servers import WORDS, Fault, chat_server

OPTIONS: dict[str, Any] = {
    "model": "fast",
    "prompts": ("prompt 1", "prompt 2", "prompt 3"),
    "concurrency": 4,
    "requests": 12,
    "max_tokens": WORDS,
    "progress": False,
    "timeout_s": 5.0,
}


def load(fault: Fault = Fault.NONE, *, pause_s: float = 0.0, **changes: Any) -> Session:
    """A run against a server with ``fault``."""

    async def both() -> Session:
        async with chat_server(fault, pause_s) as server:
            return await run(LoadOptions(target=Target.of(server.url, "key"), **(OPTIONS | changes)))

    return asyncio.run(both())


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (Fault.NO_DONE, "no_done"),
        (Fault.AFTER_DONE, "after_done"),
        (Fault.NO_FINISH, "no_finish_reason"),
        (Fault.NO_USAGE, "no_usage"),
        (Fault.WRONG_COUNT, "token_count"),
        (Fault.ERROR_FRAME, "error_frame"),
        (Fault.NOT_JSON, "malformed"),
        (Fault.TRUNCATED, "truncated"),
        (Fault.NOT_HTTP, "truncated"),
        (Fault.STATUS_500, "status"),
    ],
)
def test_each_fault_of_a_server_is_reported_by_its_name(fault: Fault, problem: str) -> None:
    report = load(fault).report

    assert report.problems == {problem: 12}
    assert report.good == 0
    assert not report.clean


def test_text_that_changes_under_load_is_a_mismatch_and_names_the_prompt() -> None:
    report = load(Fault.WRONG_TEXT_UNDER_LOAD, verify_alone=True, pause_s=0.002).report

    assert report.mismatched_prompts == [1]
    assert set(report.problems) == {"mismatch"}
    assert "someone else's" in report.failures[0].detail
    assert not report.clean


def test_equal_text_under_load_is_good() -> None:
    report = load(verify_alone=True, pause_s=0.001).report

    assert report.clean
    assert report.compared_with_alone


def test_a_prompt_that_fails_alone_ends_the_run_before_the_load() -> None:
    report = load(Fault.NO_DONE, verify_alone=True).report

    assert report.requests == 1
    assert not report.clean


def test_a_server_that_never_answers_is_a_timeout() -> None:
    assert load(Fault.HANGS, timeout_s=0.2, requests=4).report.problems == {"timeout": 4}


def test_no_server_at_all_is_a_connect_problem() -> None:
    options = LoadOptions(target=Target.of("http://127.0.0.1:9/v1", ""), **(OPTIONS | {"requests": 2}))

    assert asyncio.run(run(options)).report.problems == {"connect": 2}


def test_a_good_run_counts_every_token_and_measures_between_frames() -> None:
    report = load(pause_s=0.01, ignore_eos=True).report

    assert report.clean
    assert report.tokens == 12 * WORDS
    assert report.itl.count == 12 * (WORDS - 1)
    assert 0.009 < report.itl.p50 < 0.1
    assert report.ttft.p50 < report.total.p50
    assert report.goodput_per_s == pytest.approx(report.requests_per_s)


def test_goodput_leaves_out_what_missed_its_service_level() -> None:
    assert load(pause_s=0.01, slo_itl_s=0.001).report.goodput_per_s == 0


def test_whole_answers_are_checked_too() -> None:
    assert load(stream=False, verify_alone=True).report.clean
    assert load(Fault.WRONG_COUNT, stream=False).report.problems == {"token_count": 12}
    assert load(Fault.STATUS_500, stream=False).report.problems == {"status": 12}


def test_open_loop_sends_what_the_arrivals_say() -> None:
    report = load(rate=200.0, duration=0.5, requests=40, pause_s=0.001).report

    assert report.requests == 40
    assert report.clean


def test_open_loop_says_so_when_too_many_are_in_flight() -> None:
    report = load(Fault.HANGS, rate=200.0, duration=0.5, requests=20, timeout_s=0.5, max_in_flight=5).report

    assert report.problems == {"not_sent": 15, "timeout": 5}


def test_duration_ends_a_closed_loop() -> None:
    report = load(requests=None, duration=0.2, pause_s=0.002).report

    assert report.clean
    assert 0.2 <= report.seconds < 2


def test_report_goes_to_table_json_and_picture(tmp_path: Path) -> None:
    session = load(pause_s=0.001)
    picture = tmp_path / "run.png"

    draw(session.answers, session.report, session.start, "a run", picture)

    assert "12 good of 12" in table(session.report)
    assert json.loads(json.dumps(session.report.json(), allow_nan=False))["tokens"] == 12 * WORDS
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_report_without_good_answers_is_still_json() -> None:
    report = load(Fault.STATUS_500).report

    assert json.loads(json.dumps(report.json(), allow_nan=False))["ttft"]["p50"] is None
    assert "FAILED: status" in table(report)


def test_command_line_exits_with_failure_when_an_answer_is_bad(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", "http://127.0.0.1:9/v1", "--requests", "1", "--no-progress"]) == 1
    assert "connect" in capsys.readouterr().out


@pytest.mark.parametrize("url", ["http://example.com/v1", "http://10.0.0.1:8000/v1", "https://localhost/v1", "nothing"])
def test_hosts_beyond_this_machine_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"machine|http://"):
        Target.of(url, "")


def test_a_remote_host_needs_a_word() -> None:
    assert Target.of("http://example.com/v1", "", allow_remote=True).host == "example.com"


@pytest.mark.parametrize(
    "change", [{"concurrency": 0}, {"rate": -1.0}, {"duration": 1e9}, {"max_tokens": 0}, {"requests": 0}]
)
def test_unbounded_runs_are_refused(change: dict[str, Any]) -> None:
    options = LoadOptions(target=Target.of("http://[::1]:1/v1", ""), **OPTIONS)

    with pytest.raises(ValueError, match="must be between"):
        replace(options, **change)


def test_builtin_prompts_are_distinct_and_ragged() -> None:
    prompts = builtin_prompts()

    assert len(set(prompts)) == 64
    assert len({len(prompt) for prompt in prompts}) > 32
    assert prompts == builtin_prompts()


def test_prompt_files_are_lines_or_json(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "b.jsonl").write_text('{"prompt": "one"}\n{"no": 1}\n')

    assert read_prompts(tmp_path / "a.txt") == ["one", "two"]
    with pytest.raises(ValueError, match=r"b\.jsonl:2"):
        read_prompts(tmp_path / "b.jsonl")
