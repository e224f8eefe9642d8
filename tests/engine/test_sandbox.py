"""The process in which grammars are tried: started when needed, ended with the engine, replaced when lost."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from engine.api import Grammar, OverloadedError, RequestError
from engine.decode.budget import MAX_COMPILE_S
from engine.decode.grammar import GrammarCompiler
from engine.decode.grammar_tokenizer import Vocabulary
from engine.decode.sandbox import Sandbox, SandboxError
from engine.decode.trial import Verdict

ROOT = Path(__file__).resolve().parents[2]
FAST = ROOT / "deployments" / "models" / "fast"
CHAIN = "start: r0\n" + "\n".join(f"r{place}: r{place + 1}" for place in range(2_000)) + '\nr2000: "a"'
SLOW = "start: T\nT: " + " & ".join(f"/(.*a.{{{number}}})*/" for number in range(1, 30))


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.of(AutoTokenizer.from_pretrained(FAST, local_files_only=True), 4_096, (2,))


@pytest.fixture
def sandbox(vocabulary: Vocabulary) -> Iterator[Sandbox]:
    subject = Sandbox(vocabulary)
    yield subject
    subject.close()


def children(pid: int) -> set[int]:
    """Processes that ``pid`` has started, zombies included."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for listed in lists for child in listed.read_text().split()}


def test_a_grammar_has_a_verdict(sandbox: Sandbox) -> None:
    assert sandbox.attempt('start: "a" | "b"') == Verdict()
    assert "unknown name" in sandbox.attempt("start: missing").complaint


def test_a_crash_or_an_endless_trial_ends_no_other(sandbox: Sandbox) -> None:
    sandbox.attempt('start: "a"')
    process = sandbox._process

    assert sandbox.attempt(CHAIN) == Verdict(fault="died")
    assert sandbox.attempt(SLOW) == Verdict(fault="slow")
    assert sandbox.attempt('start: "a"') == Verdict()
    assert sandbox._process is process


def test_many_threads_try_at_once(sandbox: Sandbox) -> None:
    found: list[Verdict] = []

    def attempt(number: int) -> None:
        found.append(sandbox.attempt(CHAIN if number % 3 == 0 else f'start: "{number}"'))

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found.count(Verdict(fault="died")) == 4
    assert found.count(Verdict()) == 8


def test_it_starts_with_the_first_grammar_and_ends_with_its_owner(vocabulary: Vocabulary) -> None:
    gc.collect()  # of other tests
    before = children(os.getpid())
    subject = Sandbox(vocabulary)
    assert children(os.getpid()) == before
    subject.attempt('start: "a"')
    [started] = children(os.getpid()) - before

    subject.close()
    assert children(os.getpid()) == before
    subject.attempt('start: "a"')
    assert children(os.getpid()) - before - {started}
    del subject
    gc.collect()

    assert children(os.getpid()) == before


def test_one_that_was_killed_is_replaced(sandbox: Sandbox) -> None:
    before = children(os.getpid())
    sandbox.attempt('start: "a"')
    [started] = children(os.getpid()) - before
    os.kill(started, signal.SIGKILL)

    assert sandbox.attempt('start: "a"') == Verdict()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGALRM, signal.SIGTERM])
def test_a_trial_that_is_ended_from_outside_says_nothing_about_its_grammar(
    sandbox: Sandbox, end: signal.Signals
) -> None:
    before = children(os.getpid())
    sandbox.attempt('start: "a"')
    [process] = children(os.getpid()) - before
    while children(process):
        time.sleep(0.01)

    def kill() -> None:
        while not (trials := [trial for fork in children(process) for trial in children(fork)]):
            time.sleep(0.01)
        time.sleep(0.2)  # until the trial has begun
        os.kill(trials[0], end)

    with ThreadPoolExecutor(1) as threads:
        killed = threads.submit(kill)
        with pytest.raises(SandboxError, match="from outside"):
            sandbox.attempt(SLOW)
        killed.result(10)
    assert sandbox.attempt('start: "a"') == Verdict()


OWNER = """
import os, signal, sys
from pathlib import Path
from engine import Engine, Grammar, SamplingParams
engine = Engine.from_pretrained(sys.argv[1], kv_cache_tokens=256)
engine.generate(["Hi"], SamplingParams(max_tokens=3, grammar=Grammar.regex("a|b")))
[pid] = {pid for listed in Path("/proc/self/task").glob("*/children") for pid in listed.read_text().split()}
print(pid, flush=True)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["returns", "killed"])
def test_it_does_not_outlive_the_process_of_the_engine(end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OWNER, str(FAST), end], capture_output=True, text=True, cwd=ROOT, check=False
    )
    pid = int(done.stdout)

    deadline = time.monotonic() + 2 * MAX_COMPILE_S
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        os.sched_yield()
    assert not Path(f"/proc/{pid}").exists(), done.stderr


def test_a_vocabulary_that_cannot_be_read_is_said_so() -> None:
    with pytest.raises(ValueError, match="cannot read this tokenizer"):
        Sandbox(Vocabulary("{}", 10, (0,))).attempt('start: "a"')
    with pytest.raises(ValueError, match="cannot read this tokenizer"):
        Vocabulary("{}", 10, (0,)).load()


@pytest.mark.parametrize("grammar", [Grammar.lark('start: "once"'), Grammar.lark("start: missing")])
def test_threads_with_one_new_grammar_have_it_tried_once(grammar: Grammar, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = AutoTokenizer.from_pretrained(FAST, local_files_only=True)
    compiler = GrammarCompiler(tokenizer, 4_096, frozenset({2}))
    waiting, tried = threading.Event(), list[str]()
    attempt = Sandbox.attempt

    def attempt_late(sandbox: Sandbox, definition: str) -> Verdict:
        tried.append(definition)
        assert waiting.wait(20)
        return attempt(sandbox, definition)

    def compile_it(number: int) -> str:
        try:
            compiler.compile(replace(grammar, param=f"field {number}"), 0)
        except RequestError as refusal:
            return str(refusal.param)
        return ""

    class Counted(Future[None]):
        """Lets the first trial begin once the seven others wait for it."""

        waiters = 0

        def result(self, timeout: float | None = None) -> None:
            Counted.waiters += 1
            if Counted.waiters == 7:
                waiting.set()
            return super().result(timeout)

    monkeypatch.setattr(Sandbox, "attempt", attempt_late)
    monkeypatch.setattr("engine.decode.grammar.Future", Counted)
    try:
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(compile_it, range(8)))
    finally:
        compiler.close()

    assert len(tried) == 1
    assert found in ([""] * 8, [f"field {number}" for number in range(8)])
    assert compiler.knows(grammar)


def test_threads_that_wait_for_a_trial_fail_with_it_and_the_next_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = AutoTokenizer.from_pretrained(FAST, local_files_only=True)
    compiler = GrammarCompiler(tokenizer, 4_096, frozenset({2}))
    grammar = Grammar.lark('start: "again"')

    def fail(sandbox: Sandbox, definition: str) -> Verdict:
        raise SandboxError("no process")

    with monkeypatch.context() as broken:
        broken.setattr(Sandbox, "attempt", fail)
        for _ in range(2):
            with pytest.raises(OverloadedError):
                compiler.compile(grammar, 0)
            assert not compiler.knows(grammar)
    compiler.compile(grammar, 0)
    compiler.close()
