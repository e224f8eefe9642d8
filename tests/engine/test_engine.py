"""What a caller of the engine may rely on: limits, aborts, faults, counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from engine import Conversation, Delta, Engine, EngineConfig, FinishReason, GenerationRequest, Message, SamplingParams
from engine.admission import Job
from engine.api import ContextLengthError, EngineError, OverloadedError, Priority, Prompt, RequestError, Usage
from engine.decode.output import Output
from engine.kernels.interface import AttentionPlan, StepPlan
from engine.kernels.reference import ReferenceKernels
from engine.kv.format import KVPages
from engine.model.decoder import Decoder
from engine.model.source import open_model
from engine.tokenizer import Tokenizer
from tests.engine.conftest import MakeEngine
from tests.engine.margins import Choices
from tests.engine.models import SHAPE, VOCAB, write

GREEDY = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)
PROMPT = tuple(range(1, 40))


def request(name: str, prompt: Prompt = PROMPT, params: SamplingParams = GREEDY, salt: str = "") -> GenerationRequest:
    return GenerationRequest(name, prompt, params, salt)


def drain(engine: Engine) -> dict[str, list[Delta]]:
    deltas: dict[str, list[Delta]] = {}
    while engine.has_work:
        for delta in engine.step():
            deltas.setdefault(delta.request_id, []).append(delta)
    return deltas


def test_a_request_is_told_step_by_step(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.add(request("a"))
    deltas = drain(engine)["a"]

    assert len(deltas) == 10
    assert [delta.finish_reason for delta in deltas] == [None] * 9 + [FinishReason.LENGTH]
    assert deltas[-1].usage is not None
    assert (deltas[-1].usage.prompt_tokens, deltas[-1].usage.completion_tokens) == (39, 10)
    assert all(delta.usage is None for delta in deltas[:-1])


def test_text_and_tokens_agree(make_engine: MakeEngine) -> None:
    engine = make_engine()
    tokens = Tokenizer.from_directory(Path(engine.config.model))

    for answer in engine.generate(["The quick", "naïve 🙂", [7]], SamplingParams(seed=1, max_tokens=40)):
        assert answer.text == tokens.decode(answer.token_ids)


@pytest.mark.usefixtures("clear_choices")
def test_stop_strings_end_an_answer_before_them(make_engine: MakeEngine) -> None:
    engine = make_engine()
    whole = engine.generate([PROMPT], GREEDY)[0].text
    stop = whole[len(whole) // 2 :][:2]
    params = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True, stop=(stop,))
    answer = engine.generate([PROMPT], params)[0]

    assert answer.finish_reason is FinishReason.STOP
    assert answer.text == whole[: whole.index(stop)]


def test_stop_tokens_end_an_answer(make_engine: MakeEngine) -> None:
    engine = make_engine()
    token = engine.generate([PROMPT], GREEDY)[0].token_ids[3]
    params = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True, stop_token_ids=(token,))
    answer = engine.generate([PROMPT], params)[0]

    assert answer.finish_reason is FinishReason.STOP
    assert answer.token_ids[-1] == token
    assert len(answer.token_ids) <= 4


def test_abort_frees_blocks_at_once(make_engine: MakeEngine) -> None:
    engine = make_engine(prefix_caching=False)
    for name in "abc":
        engine.add(request(name))
    engine.step()
    before = engine.stats().blocks_used
    engine.abort(["a", "c", "unknown"])

    assert engine.stats().blocks_used == before // 3
    assert set(drain(engine)) == {"b"}
    assert engine.stats().aborted == 2
    engine.check_integrity()


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "param"),
    [
        ((1,) * 256, None, "prompt"),
        ("a b c " * 200, None, "prompt"),
        (Conversation((Message("user", "a b c " * 200),)), None, "messages"),
        ((1,) * 250, 7, "max_tokens"),
    ],
)
def test_what_exceeds_the_context_is_refused(
    make_engine: MakeEngine, prompt: Prompt, max_tokens: int | None, param: str
) -> None:
    with pytest.raises(ContextLengthError, match="maximum context length is 256 tokens") as refusal:
        make_engine().add(request("a", prompt, SamplingParams(max_tokens=max_tokens)))
    assert (refusal.value.param, refusal.value.code) == (param, "context_length_exceeded")


@pytest.mark.parametrize(
    ("max_tokens", "min_tokens", "length"), [(None, 0, 20), (5, 0, 5), (30, 0, 30), (None, 25, 25)]
)
def test_an_answer_without_a_limit_has_that_of_the_engine(
    make_engine: MakeEngine, max_tokens: int | None, min_tokens: int, length: int
) -> None:
    engine = make_engine(default_max_tokens=20)
    params = SamplingParams(temperature=0, ignore_eos=True, max_tokens=max_tokens, min_tokens=min_tokens)
    answer = engine.generate([PROMPT], params)[0]

    assert answer.usage.completion_tokens == length
    assert answer.finish_reason is FinishReason.LENGTH


def test_the_limit_of_the_engine_never_exceeds_the_context(make_engine: MakeEngine) -> None:
    engine = make_engine(kv_cache_tokens=70, default_max_tokens=40)
    answer = engine.generate([PROMPT], SamplingParams(temperature=0, ignore_eos=True))[0]
    assert answer.usage.completion_tokens == 64 - 39


@pytest.mark.parametrize("prompt", ["", (), (VOCAB,), (1, -1)])
def test_prompts_that_are_no_tokens_are_refused(make_engine: MakeEngine, prompt: Prompt) -> None:
    with pytest.raises(RequestError) as refusal:
        make_engine().add(request("a", prompt))
    assert refusal.value.param == "prompt"


def test_the_context_never_exceeds_the_cache(make_engine: MakeEngine) -> None:
    engine = make_engine(kv_cache_tokens=70)
    answer = engine.generate([PROMPT], SamplingParams(temperature=0, ignore_eos=True))[0]

    assert engine.model_info.context_length == 64
    assert answer.usage.completion_tokens == 64 - 39
    assert answer.finish_reason is FinishReason.LENGTH


def test_a_full_queue_refuses(make_engine: MakeEngine) -> None:
    engine = make_engine(max_waiting=1)
    engine.add(request("a"))
    with pytest.raises(OverloadedError):
        engine.add(request("b"))
    engine.step()
    engine.add(request("b"))

    assert set(drain(engine)) == {"a", "b"}


def test_an_id_in_use_is_refused(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.add(request("a"))

    with pytest.raises(RequestError, match="in use"):
        engine.add(request("a"))
    with pytest.raises(EngineError, match="under way"):
        engine.generate(["x"])


class BrokenDetokenizer:
    """Fails at the third token."""

    added = b""

    def __init__(self) -> None:
        self.tokens = 0

    def push(self, token: int) -> str:
        self.tokens += 1
        if self.tokens == 3:
            raise ValueError("broken")
        return "x"

    def flush(self) -> str:
        return ""

    def copy(self) -> BrokenDetokenizer:
        raise NotImplementedError


@pytest.mark.usefixtures("clear_choices")
def test_a_bad_sequence_fails_alone(make_engine: MakeEngine) -> None:
    expected = [delta.text for delta in run_one(make_engine(), "good")]
    engine = make_engine()
    engine.add(request("good"))
    bad = engine.prepare(request("bad"))
    engine.enqueue(Job(bad.sequence, Output(GREEDY, frozenset(), BrokenDetokenizer())))
    deltas = drain(engine)

    assert [delta.text for delta in deltas["good"]] == expected
    assert len(deltas["bad"]) == 3
    assert (deltas["bad"][-1].finish_reason, deltas["bad"][-1].error) == (
        FinishReason.ERROR,
        "The engine failed: ValueError",
    )
    assert (engine.stats().failed, engine.stats().blocks_used) == (1, 0)


def run_one(engine: Engine, name: str) -> list[Delta]:
    engine.add(request(name))
    return drain(engine)[name]


class PoisonedDecoder(Decoder[AttentionPlan]):
    """Fails on token 13."""

    def forward(
        self, tokens: Tensor, plan: StepPlan[AttentionPlan], cache: list[KVPages], wanted: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if (tokens == 13).any():
            raise RuntimeError("poison")
        return super().forward(tokens, plan, cache, wanted)


def poisoned_engine(directory: Path, **settings: Any) -> Engine:
    model = PoisonedDecoder.load(open_model(directory), torch.float32, torch.device("cpu"), ReferenceKernels())
    return Engine(EngineConfig(model=str(directory), **settings), model, Tokenizer.from_directory(directory))


def test_a_failing_pass_fails_its_batch_and_no_other(model_path: Callable[[str], Path]) -> None:
    engine = poisoned_engine(model_path("llama-tied"))
    engine.add(request("bad", (12, 13)))
    failed = drain(engine)["bad"]
    params = SamplingParams(temperature=0, max_tokens=1)

    assert [delta.finish_reason for delta in failed] == [FinishReason.ERROR]
    assert engine.generate([(12, 14)], params)[0].finish_reason is not FinishReason.ERROR
    assert engine.stats().blocks_used == 0
    engine.check_integrity()


@pytest.mark.parametrize(("good", "computed"), [(1, 0), (7, 0), (8, 8), (20, 16)])
def test_a_request_that_fails_in_its_prompt_counts_what_was_computed(
    model_path: Callable[[str], Path], good: int, computed: int
) -> None:
    """A step that has failed has computed nothing, whatever it was given."""
    engine = poisoned_engine(model_path("llama-tied"), prefill_chunk=8)
    engine.add(request("bad", (*range(20, 20 + good), 13, 14, 15)))
    (failed,) = drain(engine)["bad"]

    assert (failed.finish_reason, failed.usage) == (FinishReason.ERROR, Usage(computed, 0, 0))


@pytest.mark.parametrize("reason", [FinishReason.ABORT, FinishReason.DEADLINE])
def test_a_request_that_was_preempted_in_its_prompt_counts_what_was_computed(
    make_engine: MakeEngine, reason: FinishReason
) -> None:
    engine, now = make_engine(kv_cache_tokens=64, prefill_chunk=8, prefix_caching=False), 0.0
    engine._clock = lambda: now
    low = replace(request("low", tuple(range(20, 60))), priority=Priority.BATCH, deadline_s=9.0)
    engine.add(low)
    assert engine.step() == engine.step() == []
    engine.add(replace(request("high", tuple(range(60, 100))), priority=Priority.INTERACTIVE))
    assert engine.step() == []
    assert engine.stats().preemptions == 1

    now = 10.0
    (ended,) = engine.step() if reason is FinishReason.DEADLINE else engine.abort(["low"])

    assert (ended.request_id, ended.finish_reason, ended.usage) == ("low", reason, Usage(16, 0, 0))


@pytest.fixture(scope="module")
def small_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that both backends take: whole panels everywhere."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("engine") / "llama"
    shape = {"hidden_size": 32, "head_dim": 16, "intermediate_size": 80}
    write(AutoModelForCausalLM.from_config(LlamaConfig(**SHAPE | shape)), path)
    return path


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize("kernels", ["torch", "compiled"])
@pytest.mark.parametrize("kv_dtype", ["auto", "int8", "fp8"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("late", [True, False])
def test_numbers_that_overflow_harm_one_sequence(
    small_heads: Path, choices: Choices, kernels: Any, kv_dtype: Any, value: float, late: bool
) -> None:
    """Be they of its last token, or of one that is computed chunks before an answer."""
    directory = small_heads
    settings: dict[str, Any] = {"kv_cache_tokens": 128, "kv_dtype": kv_dtype, "kernels": kernels, "prefill_chunk": 8}
    clean = Engine.from_pretrained(directory, **settings).generate([PROMPT], GREEDY)
    model = Decoder.load(open_model(directory), torch.float32, torch.device("cpu"), ReferenceKernels())
    model.weights.embedding[100, 3] = value
    config = EngineConfig(model=str(directory), **settings)
    engine = Engine(config, model, Tokenizer.from_directory(directory))
    bad = (*PROMPT, 100) if late else (100, *PROMPT, *range(5, 30))

    for _ in range(3):  # until every block has been in bad hands
        answers = engine.generate([bad, PROMPT], GREEDY)

        assert (answers[0].finish_reason, answers[0].error) == (
            FinishReason.ERROR,
            "The engine failed: FloatingPointError",
        )
        if kv_dtype == "auto" or kernels == "compiled":
            assert answers[1].token_ids == clean[0].token_ids
        else:
            choices.same([PROMPT], [answers[1].token_ids], [clean[0].token_ids], share=0.5)
    engine.check_integrity()


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_is_resumed_by_another_engine(make_engine: MakeEngine, temperature: float) -> None:
    params = SamplingParams(temperature=temperature, seed=3, max_tokens=12, ignore_eos=True)
    engine = make_engine()
    engine.add(request("a", "naïve 🙂", params))
    deltas = drain(engine)["a"]

    for sent in range(12):
        resume = tuple(token for delta in deltas[:sent] for token in delta.token_ids)
        other = make_engine(prefill_chunk=5)
        other.add(GenerationRequest("a", "naïve 🙂", params, resume=resume))

        assert drain(other)["a"] == deltas[sent:]


@pytest.mark.parametrize(("resume", "reason"), [((0,), FinishReason.STOP), ((5,) * 10, FinishReason.LENGTH)])
def test_of_a_whole_answer_only_the_end_is_sent(
    make_engine: MakeEngine, resume: tuple[int, ...], reason: FinishReason
) -> None:
    engine = make_engine()
    engine.add(GenerationRequest("a", PROMPT, SamplingParams(max_tokens=10), resume=resume))
    assert engine.has_work
    assert drain(engine)["a"] == [Delta("a", (), "", reason, Usage(len(PROMPT), len(resume), 0))]
    assert engine.stats().finished == 1


@pytest.mark.parametrize("resume", [(0, 5), (5,) * 11])
def test_an_answer_that_goes_on_after_its_end_is_not_resumed(make_engine: MakeEngine, resume: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match="after its end") as refusal:
        make_engine().add(GenerationRequest("a", PROMPT, SamplingParams(max_tokens=10), resume=resume))
    assert refusal.value.param == "resume"


@pytest.mark.parametrize(("salt", "cached"), [("one", 32), ("two", 0)])
def test_tenants_do_not_share_prefixes(make_engine: MakeEngine, salt: str, cached: int) -> None:
    engine = make_engine()
    engine.add(request("a", salt="one"))
    drain(engine)
    engine.add(request("b", salt=salt))
    usage = drain(engine)["b"][-1].usage

    assert usage is not None
    assert usage.cached_tokens == engine.stats().cached_tokens == cached


def test_counters_count(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.generate([PROMPT, PROMPT[:5]], GREEDY)
    stats = engine.stats()

    assert (stats.prompt_tokens, stats.generated_tokens, stats.finished) == (44, 20, 2)
    assert (stats.running, stats.waiting, stats.blocks_used) == (0, 0, 0)


def test_parameters_may_differ_by_prompt(make_engine: MakeEngine) -> None:
    params = [SamplingParams(max_tokens=n, ignore_eos=True) for n in (3, 1, 2)]
    answers = make_engine().generate(["a", "b", "a"], params)

    assert [len(answer.token_ids) for answer in answers] == [3, 1, 2]
    with pytest.raises(RequestError):
        make_engine().generate(["a"], params)
