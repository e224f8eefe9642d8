"""The comparison of streams before and after a fault, and a real kill."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from load_tests.chaos.__main__ import make_parser
from load_tests.chaos.faults import MOVING, Fault
from load_tests.chaos.mix import KINDS, Request, mix
from load_tests.chaos.report import clean, report
from load_tests.chaos.transcript import Transcript, difference, longest_pause
from load_tests.chaos.trial import Trial, disturbed, judge
from router.openai.chat import ChatEndpoint
from tests.load_tests import servers

ROOT = Path(__file__).resolve().parents[2]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1}}


def event(index: int = 0, finish: str | None = None, logprobs: Any = None, **delta: Any) -> str:
    return json.dumps(
        {"choices": [{"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}], "usage": None}
    )


def transcript(*events: str, usage: Any = USAGE) -> Transcript:
    got = Transcript()
    for place, data in enumerate([*events, json.dumps({"choices": [], "usage": usage}), "[DONE]"]):
        got.take(data, float(place))
    got.close()
    return got


WHOLE = (event(role="assistant"), event(content="one "), event(content="two"), event(finish="stop"))


def test_the_same_text_in_other_pieces_and_another_cached_count_are_no_difference() -> None:
    expected = transcript(*WHOLE)
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 0}}
    got = transcript(event(content="one two"), event(finish="stop"), usage=usage)
    assert expected.problem is None
    assert difference(expected, got) is None


@pytest.mark.parametrize(
    ("events", "usage", "said"),
    [
        ((event(content="one tow"), event(finish="stop")), USAGE, "text from character 5"),
        ((event(content="one twotwo"), event(finish="stop")), USAGE, "text from character 7"),
        ((event(content="one two"), event(finish="length")), USAGE, "finish_reason length"),
        ((event(content="one two"), event(finish="stop")), {**USAGE, "completion_tokens": 4}, "usage"),
        ((event(content="one two"), event(finish="abort")), USAGE, "finish_reason abort"),  # vLLM's issue 57082
        ((event(content="one two"), event(finish="stop"), event(1, "stop", content="x")), USAGE, r"choices \[0, 1\]"),
        ((event(content="one two", logprobs={"content": [{"logprob": -1}]}), event(finish="stop")), USAGE, "probabil"),
        (
            (event(content="one two", tool_calls=[{"index": 0, "function": {"name": "f"}}]), event(finish="stop")),
            USAGE,
            "tool calls",
        ),
    ],
)
def test_what_differs_is_named(events: tuple[str, ...], usage: Any, said: str) -> None:
    found = difference(transcript(*WHOLE), transcript(*events, usage=usage))
    assert found is not None
    assert re.search(said, found), found


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([*WHOLE], "before [DONE]"),
        ([*WHOLE[:2], json.dumps({"error": {"code": "replica_lost"}}), "[DONE]"], "replica_lost"),
        ([*WHOLE[:3], json.dumps({"choices": [], "usage": USAGE}), "[DONE]"], "no finish_reason"),
        ([*WHOLE, "[DONE]"], "no usage"),
        ([*WHOLE, *WHOLE[1:], json.dumps({"choices": [], "usage": USAGE}), "[DONE]"], "after its finish_reason"),
        ([*WHOLE, *2 * [json.dumps({"choices": [], "usage": USAGE})], "[DONE]"], "usage came twice"),
        ([*WHOLE, "[DONE]", "[DONE]"], "after [DONE]"),
    ],
)
def test_a_stream_that_is_not_whole_is_a_problem(events: list[str], said: str) -> None:
    got = Transcript()
    for data in events:
        got.take(data, 0.0)
    got.close()
    assert got.problem is not None
    assert said in got.problem


def test_a_pause_is_the_longest_gap_that_ends_after_the_fault() -> None:
    times = [0.0, 5.0, 6.0, 8.0, 8.5]
    assert longest_pause(times, since=5.5) == 2.0
    assert longest_pause(times, since=4.0) == 5.0
    assert longest_pause(times, since=9.0) is None


def test_pauses_are_of_the_moved_streams_where_some_tell_that_they_were_moved() -> None:
    moved, other = (transcript(*WHOLE, usage={**USAGE, "failover_details": {"failovers": n}}) for n in (1, 0))
    moved.times, other.times = [0.0, 3.0], [0.0, 1.0]
    requests = [Request("greedy", {}), Request("seeded", {})]
    trial = judge(requests, [moved, other], [moved, other], fault_at=0.5)
    assert (trial.moved, trial.open_at_fault, trial.pauses_s) == (1, 2, [3.0])


def test_requests_that_were_sent_again_while_the_fault_lasted_are_judged_too() -> None:
    whole, other = transcript(*WHOLE), transcript(event(content="one"), event(finish="stop"))
    requests = [Request("greedy", {}), Request("seeded", {})]
    trial = judge(requests, [whole, whole], [whole, whole, whole, other], fault_at=0.5)
    assert trial.streams == 4
    assert [kind for kind, _ in trial.differences] == ["seeded"]


def test_the_report_counts_streams_and_names_the_first_of_each_kind() -> None:
    trials = [
        Trial(4, problems=[("tools", "first"), ("tools", "second")], pauses_s=[0.1], open_at_fault=3),
        Trial(4, differences=[("beams", "other")], pauses_s=[0.3], open_at_fault=2),
    ]
    figures = report(trials)
    assert (figures["streams"], figures["failed"], figures["different"]) == (8, 2, 1)
    assert figures["pause_ms"] == {"p50": 200.0, "p99": pytest.approx(298.0)}
    assert figures["first_failures"] == {"tools": "first"}
    assert not clean(figures, Fault.RELOAD_HAPROXY)


@pytest.mark.parametrize("fault", Fault)
def test_a_fault_that_hits_no_stream_proves_nothing(fault: Fault) -> None:
    assert not clean(report([Trial(4)]), fault)
    assert clean(report([Trial(4, open_at_fault=1)]), fault) is (fault not in MOVING)
    assert clean(report([Trial(4, open_at_fault=1, moved=1)]), fault)


def test_the_report_says_how_long_the_work_of_killed_routers_went_on() -> None:
    figures = report([Trial(4, aborted_s=0.1), Trial(4, aborted_s=0.4)])
    assert figures["abort_ms"] == {"p50": 250.0, "max": 400.0}
    assert "abort_ms" not in report([Trial(4)])


def test_every_kind_is_in_a_mix_and_every_answer_is_determined() -> None:
    requests = mix(2 * len(KINDS), 50)
    assert {request.kind for request in requests} == set(KINDS)
    assert all(request.body["temperature"] == 0 or "seed" in request.body for request in requests)
    assert len({json.dumps(request.body) for request in requests}) == len(requests)


@pytest.mark.parametrize("request_", mix(len(KINDS), 50), ids=lambda request: request.kind)
def test_the_router_takes_every_kind(request_: Request) -> None:
    parsed = ChatEndpoint().parse(json.dumps(request_.body).encode())
    assert parsed.sampling.max_tokens == request_.body["max_tokens"]


@pytest.mark.parametrize("arguments", [[], ["--kill", "gpu"], ["--kill", "replica", "--stop", "replica"]])
def test_a_fault_that_does_not_exist_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args(arguments)


def test_every_fault_has_an_option() -> None:
    options = [[f"--{verb}", *part] for verb, *part in (fault.split() for fault in Fault)]
    options[options.index(["--drain", "replica"])] = ["--drain"]
    assert [make_parser().parse_args(each).fault for each in options] == list(Fault)
    assert make_parser().parse_args(["--rolling-update"]).fault is Fault.UPDATE_TIER


def through(fault: servers.Fault, after: int, timeout_s: float = 5.0) -> tuple[list[Transcript], list[int]]:
    """What eight requests to a server with ``fault`` get, and when the disturbance came, in requests that were open."""
    requests = mix(8, 8, {kind: KINDS[kind] for kind in ("greedy", "prompt_logprobs")})
    hits: list[int] = []

    async def run() -> list[Transcript]:
        async with servers.chat_server(fault, pause_s=0.01) as server:
            url = server.url.removesuffix("/v1")
            got, _ = await disturbed(url, "key", requests, after, lambda: hits.append(len(server.asked)), timeout_s)
            return got

    return asyncio.run(run()), hits


def test_a_fault_that_lasts_gets_requests_for_as_long() -> None:
    requests = mix(2, 8, {"greedy": KINDS["greedy"]})

    async def run() -> tuple[int, list[Transcript]]:
        async with servers.chat_server(servers.Fault.NONE, pause_s=0.01) as server:

            def inject() -> None:
                while len(server.asked) < 5:
                    time.sleep(0.001)

            got, _ = await disturbed(server.url.removesuffix("/v1"), "key", requests, 1, inject, 5.0)
            return len(server.asked), got

    asked, got = asyncio.run(run())
    assert asked == len(got) >= 6
    assert [each.problem for each in got] == [None] * 6


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (servers.Fault.TRUNCATED, "connection broke"),
        (servers.Fault.NO_DONE, "before [DONE]"),
        (servers.Fault.ERROR_FRAME, "the engine has died"),
        (servers.Fault.NOT_JSON, "malformed"),
        (servers.Fault.STATUS_500, "status 500"),
        (servers.Fault.NOT_HTTP, "connection broke"),
        (servers.Fault.HANGS, "no end within 0.3 s"),
    ],
)
def test_what_goes_wrong_in_a_stream_over_http_is_a_problem_of_that_stream(fault: servers.Fault, said: str) -> None:
    got, _ = through(fault, 5, timeout_s=0.3 if fault is servers.Fault.HANGS else 5.0)
    assert said in str(got[0].problem)


def test_the_fault_comes_once_in_the_middle_of_streams_that_are_not_harmed_by_it() -> None:
    expected, _ = through(servers.Fault.NONE, 1)
    got, hits = through(servers.Fault.NONE, 20)
    assert hits == [8]
    assert [each.problem for each in got] == [None] * 8
    assert [difference(one, other) for one, other in zip(expected, got, strict=True)] == [None] * 8
    other, _ = through(servers.Fault.WRONG_COUNT, 1)
    assert "usage" in str(difference(expected[0], other[0]))


@pytest.mark.slow
def test_streams_of_a_killed_replica_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    out = tmp_path / "chaos.json"
    command = [sys.executable, "-m", "load_tests.chaos", "--kill", "replica", "--streams", "6", "--times", "1"]
    command += ["--kinds", "greedy", "seeded", "choices", "--max-tokens", "120", "--timeout", "60", "--json", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=ROOT, timeout=240, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    figures = json.loads(out.read_text())
    assert figures["streams"] == 6
    assert figures["open_at_fault"] > 0
    assert (figures["failed"], figures["different"]) == (0, 0)
