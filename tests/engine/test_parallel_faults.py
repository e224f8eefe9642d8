"""A process that dies, raises or hangs ends its engine, clearly and soon; no process outlives the engine it is of."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import AsyncEngine, Delta, Engine, EngineDeadError, FinishReason, GenerationRequest, SamplingParams
from engine.config import EngineConfig
from engine.parallel.collectives import ProcessGroup
from engine.parallel.launch import Invitation
from engine.parallel.wire import Orders, Scrub
from tests.engine.ranks import Forked, eventually, is_alive, kill, split_engine

PARAMS = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
ROOT = Path(__file__).resolve().parents[2]


def ends(engine: Engine | AsyncEngine) -> str:
    """Why, within the bound."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            engine.check_health()
        except EngineDeadError as error:
            return str(error)
        time.sleep(0.01)
    raise AssertionError("the engine is still in good health")


def test_a_worker_that_dies_while_nothing_happens_fails_the_health_check(model_path: Callable[[str], Path]) -> None:
    launcher = Forked()
    engine = split_engine(model_path("llama-untied"), 2, launcher)
    engine.check_health()

    kill(launcher.pids)

    assert "rank 1 has died" in ends(engine)
    with pytest.raises(EngineDeadError, match="rank 1 has died"):
        engine.generate([[1, 2, 3]], PARAMS)
    engine.close()


def test_one_that_dies_takes_the_others_along(model_path: Callable[[str], Path]) -> None:
    launcher = Forked()
    engine = split_engine(model_path("llama-untied"), 4, launcher)

    kill(launcher.pids[1:2])

    assert "rank 2 has died" in ends(engine)
    eventually(lambda: not any(map(is_alive, launcher.pids)), "all workers have ended", 5)
    engine.close()


def test_a_worker_that_raises_says_so(model_path: Callable[[str], Path]) -> None:
    launcher = Forked()
    engine = split_engine(model_path("llama-untied"), 2, launcher)
    assert engine._crew is not None

    engine._crew.tell(Scrub([[10**9]]))

    assert "rank 1 has failed: IndexError" in ends(engine)
    engine.close()


def test_a_worker_that_hangs_is_waited_for_no_longer_than_allowed(model_path: Callable[[str], Path]) -> None:
    launcher = Forked()
    engine = split_engine(model_path("llama-untied"), 2, launcher, rank_timeout_s=1.0)
    kill(launcher.pids, signal.SIGSTOP)
    began = time.monotonic()

    with pytest.raises(EngineDeadError):
        engine.generate([[1, 2, 3]], PARAMS)

    assert time.monotonic() - began < 5
    assert ends(engine)
    eventually(lambda: not any(map(is_alive, launcher.pids)), "the worker is killed", 5)
    engine.close()


def test_the_engines_thread_ends_its_requests_and_takes_no_more(model_path: Callable[[str], Path]) -> None:
    launcher = Forked()
    deltas: list[Delta] = []

    def take(step: Sequence[Delta]) -> None:
        if not deltas:
            kill(launcher.pids)  # in the middle of an answer
        deltas.extend(step)

    engine = AsyncEngine(split_engine(model_path("llama-untied"), 2, launcher), take)
    engine.start()
    engine.submit(GenerationRequest("a", (1, 2, 3), PARAMS))

    eventually(lambda: bool(deltas) and deltas[-1].last, "the request ends", 10)
    assert (deltas[-1].finish_reason, deltas[-1].usage) == (FinishReason.ERROR, None), "the request is not at fault"
    assert "rank 1 has died" in ends(engine)
    with pytest.raises(EngineDeadError):
        engine.submit(GenerationRequest("b", (1, 2, 3), PARAMS))
    engine.close()


def test_closing_leaves_no_process_and_may_be_done_twice(model_path: Callable[[str], Path]) -> None:
    launcher = Forked()
    engine = AsyncEngine(split_engine(model_path("llama-untied"), 2, launcher), lambda _: None)
    engine.start()
    assert any(map(is_alive, launcher.pids))

    engine.close()
    engine.close()

    assert not any(map(is_alive, launcher.pids))


def leave(invitation: Invitation, gpu: int) -> None:
    """A worker that ends before it has said a word."""


def test_a_worker_that_does_not_come_up_stops_the_start(model_path: Callable[[str], Path]) -> None:
    with pytest.raises(EngineDeadError, match="rank 1"):
        split_engine(model_path("llama-untied"), 2, Forked(leave))


def test_a_worker_that_cannot_load_says_why(model_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def misled(config: EngineConfig, meeting: str, limit_s: float) -> Orders:
        return Orders(replace(config, model="/nowhere"), meeting, limit_s)

    launcher = Forked()
    monkeypatch.setattr("engine.parallel.crew.Orders", misled)

    with pytest.raises(EngineDeadError, match=r"rank 1 has failed: ModelNotFoundError: /nowhere does not exist"):
        split_engine(model_path("llama-untied"), 2, launcher)

    assert not any(map(is_alive, launcher.pids))


def test_a_worker_that_leaves_while_it_is_looked_for_says_why(
    model_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This rank notices only that a connection was closed."""
    launcher = Forked()

    def misled(config: EngineConfig, meeting: str, limit_s: float) -> Orders:
        wrong: Any = "nowhere"  # so that it fails before it meets anybody
        return Orders(replace(config, device=wrong), meeting, limit_s)

    def join(*given: object) -> ProcessGroup:
        launcher.processes[0].join(20)
        raise RuntimeError("closed by peer")

    monkeypatch.setattr("engine.parallel.crew.Orders", misled)
    monkeypatch.setattr(ProcessGroup, "join", join)

    with pytest.raises(EngineDeadError, match=r"did not meet: rank 1 has failed: RuntimeError: .*nowhere"):
        split_engine(model_path("llama-untied"), 2, launcher)

    assert not any(map(is_alive, launcher.pids))


PROGRAM = """
import sys, time
from engine import Engine, SamplingParams
engine = Engine.from_pretrained(sys.argv[1], tensor_parallel=2, threads=1, kv_cache_tokens=4096)
answer = engine.generate([[1, 2, 3]], SamplingParams(temperature=0, max_tokens=4, ignore_eos=True))[0]
print(*[worker._process.pid for worker in engine._crew._watch._workers], *answer.token_ids, flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize(("seconds", "how"), [(60, signal.SIGKILL), (0, None)])
def test_workers_end_with_their_engine_however_it_ends(
    model_path: Callable[[str], Path], seconds: int, how: signal.Signals | None
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(model_path("llama-untied")), str(seconds)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker, *tokens = map(int, process.stdout.readline().split())
        assert len(tokens) == 4
        if how is not None:
            process.send_signal(how)
        process.wait(timeout=10)

    eventually(lambda: not is_alive(worker), "the worker has ended", 5)
    assert process.returncode == (0 if how is None else -how)
