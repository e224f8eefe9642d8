"""Greedy answers are transformers' own, token for token, however the work is cut and shared."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from engine import Engine, FinishReason, SamplingParams
from engine.model.configuration import read_spec
from tests.engine.conftest import MakeEngine
from tests.engine.models import VOCAB, oracle, ragged_prompts

pytestmark = pytest.mark.usefixtures("clear_choices")

GREEDY = SamplingParams(temperature=0, max_tokens=12)
TIERS = sorted((Path(__file__).parents[2] / "deployments/models").glob("*/tokenizer.json"))


@pytest.fixture(scope="session")
def expected(model_path: Callable[[str], Path]) -> Callable[[str], list[tuple[int, ...]]]:
    """The oracle's answers to the ragged prompts."""

    @cache
    def answers(name: str) -> list[tuple[int, ...]]:
        return oracle(model_path(name), ragged_prompts(VOCAB), 12)

    return answers


@pytest.fixture(scope="session")
def expected_of_tier() -> Callable[[Path], list[tuple[int, ...]]]:
    """The oracle's answers to the shorter prompts by the model of that directory."""

    @cache
    def answers(directory: Path) -> list[tuple[int, ...]]:
        return oracle(directory, ragged_prompts(read_spec(directory).vocab_size)[:5], 16)

    return answers


@pytest.mark.parametrize("prefix_caching", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("name", ["llama-tied", "qwen3"])  # test_families.py has the others, and the logits
def test_ragged_batch(
    make_engine: MakeEngine,
    expected: Callable[[str], list[tuple[int, ...]]],
    name: str,
    chunk: int,
    prefix_caching: bool,
) -> None:
    engine = make_engine(name, prefill_chunk=chunk, prefix_caching=prefix_caching)

    for _ in range(2):  # the second time over a warm cache
        answers = engine.generate(ragged_prompts(VOCAB), GREEDY)

        assert [a.token_ids for a in answers] == expected(name)

    assert (engine.stats().cached_tokens > 0) == prefix_caching
    engine.check_integrity()


def test_alone(make_engine: MakeEngine, expected: Callable[[str], list[tuple[int, ...]]]) -> None:
    engine = make_engine()

    answers = [engine.generate([prompt], GREEDY)[0].token_ids for prompt in ragged_prompts(VOCAB)]

    assert answers == expected("llama-tied")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_preempted_sequences_continue_as_if_nothing_had_happened(make_engine: MakeEngine, temperature: float) -> None:
    prompts = ragged_prompts(VOCAB)[:5] * 2
    params = SamplingParams(temperature=temperature, seed=5, max_tokens=60, ignore_eos=True)
    roomy, tight = make_engine(), make_engine(kv_cache_tokens=192, prefix_caching=False)

    expected = [a.token_ids for a in roomy.generate(prompts, params)]
    answers = tight.generate(prompts, params)

    assert [a.token_ids for a in answers] == expected
    assert tight.stats().prompt_tokens > sum(map(len, prompts))  # some were computed again
    tight.check_integrity()


@pytest.mark.parametrize("shared", [1, 31])
def test_seeded_answers_do_not_depend_on_the_batch(make_engine: MakeEngine, shared: int) -> None:
    params = SamplingParams(temperature=0.9, top_p=0.95, top_k=50, seed=11, max_tokens=20)
    others = SamplingParams(temperature=1.3, max_tokens=20)
    prompts = ragged_prompts(VOCAB)

    alone = make_engine().generate([prompts[4]], params)
    among = make_engine().generate([*(prompts * 4)[:shared], prompts[4]], [others] * shared + [params])

    assert among[-1].token_ids == alone[0].token_ids


@pytest.mark.parametrize("caching", [True, False], ids=["cached", "uncached"])
@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("directory", [path.parent for path in TIERS], ids=lambda path: path.name)
def test_tiers(
    expected_of_tier: Callable[[Path], list[tuple[int, ...]]], directory: Path, chunk: int, caching: bool
) -> None:
    engine = Engine.from_pretrained(directory, prefill_chunk=chunk, prefix_caching=caching)
    prompts = ragged_prompts(engine.model_info.vocab_size)[:5]
    expected = expected_of_tier(directory)

    for _ in range(2):  # the second time from the prefix cache, if there is one
        answers = engine.generate(prompts, SamplingParams(temperature=0, max_tokens=16))
        assert [a.token_ids for a in answers] == expected

    assert (engine.stats().cached_tokens > 0) == caching


def test_16_bit_types_answer(make_engine: MakeEngine) -> None:
    for dtype in ("bfloat16", "float16"):
        answer = make_engine(dtype=dtype).generate([[1, 2, 3]], GREEDY)[0]

        assert answer.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)
