"""Layers with a window hold what they see, and no more, and answer as if they held everything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine import Engine, EngineConfig, FinishReason, GenerationRequest, SamplingParams
from engine.kernels.reference import ReferenceKernels
from engine.kv.cache import KVCache
from engine.kv.format import BlockCopy
from engine.kv.shape import GroupShape
from engine.model.decoder import Decoder
from engine.model.source import open_model
from engine.sequence import Sequence
from engine.tokenizer import Tokenizer
from tests.engine.families import CONFIGS, disturb
from tests.engine.models import VOCAB, write
from tests.engine.sequences import sequence

pytestmark = pytest.mark.usefixtures("clear_choices")

WINDOW = 24
CHUNK = 32
GREEDY = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model of that family in a shape that both backends take, with a long context and a short window."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            torch.manual_seed(0)
            shape = {
                "hidden_size": 32,
                "head_dim": 16,
                "num_attention_heads": 4,
                "intermediate_size": 80,
                "max_position_embeddings": 40_000,
                "sliding_window": WINDOW,
            }
            config = type(CONFIGS[name])(**CONFIGS[name].to_dict() | shape)
            model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
            disturb(model)
            made[name] = tmp_path_factory.mktemp("windows") / name
            write(model, made[name])
        return made[name]

    return make


def make_engine(path: Path, **config: Any) -> Engine:
    return Engine.from_pretrained(path, **{"threads": 1, "prefill_chunk": CHUNK, "kv_cache_tokens": 4096} | config)


def prompt_of(length: int, start: int = 0) -> tuple[int, ...]:
    return tuple((start + 7 * n * n + n) % (VOCAB - 8) + 4 for n in range(length))


def most_held(engine: Engine, prompt: tuple[int, ...]) -> int:
    """Runs a prompt; the most blocks it held."""
    engine.add(GenerationRequest("r", prompt, GREEDY))
    most = 0
    while engine.has_work:
        engine.step()
        most = max(most, engine.stats().blocks_used)
    assert engine.stats().failed == 0
    engine.check_integrity()
    return most


def test_memory_stays_flat_from_2k_to_32k_tokens(directory: Callable[[str], Path]) -> None:
    """In a cache of a thirtieth of the longest prompt."""
    engine = make_engine(directory("mistral"), kv_cache_tokens=1024, max_batch_tokens=4096, prefix_caching=False)

    held = [most_held(engine, prompt_of(length)) for length in (2_000, 8_000, 32_000)]

    assert held == [-(-(WINDOW - 1 + CHUNK) // 16) + 1] * 3


@pytest.mark.parametrize("kernels", ["torch", "compiled"])
@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3"])
def test_answers_are_those_of_an_engine_that_lets_nothing_go(
    directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str, kernels: str
) -> None:
    prompts = [prompt_of(length) for length in (5, 30, 100, 170)]
    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    engine = make_engine(directory(name), kernels=kernels)
    found = [answer.token_ids for answer in engine.generate(prompts, params)]
    again = [answer.token_ids for answer in engine.generate(prompts, params)]
    cached = engine.stats().cached_tokens

    monkeypatch.setattr("engine.kv.shape.GroupShape.first_seen", lambda self, start: 0)
    monkeypatch.setattr("engine.kv.shape.GroupShape.bound", None)
    whole = make_engine(directory(name), kernels=kernels, prefix_caching=False)

    assert found == [answer.token_ids for answer in whole.generate(prompts, params)]
    assert again == found
    assert cached > 0


def compute(cache: KVCache, subject: Sequence) -> None:
    """All tokens, in chunks of eight."""
    while subject.pending:
        assert cache.prepare(subject) == []
        subject.computed += min(subject.pending, 8)
        cache.commit(subject)


def test_a_hybrid_prefix_is_found_where_the_window_still_is() -> None:
    shapes = [GroupShape(None, 40, 4, 8), GroupShape(9, 40, 4, 8)]
    cache = KVCache(shapes, prefix_caching=True)
    first = sequence("a", list(range(36)))
    assert cache.admit(first, spare=0)
    compute(cache, first)
    assert [len(table.held) for table in first.tables] == [9, 3]
    cache.release(first)

    second = sequence("b", [*range(36), 99])
    assert cache.admit(second, spare=0)
    assert second.computed == 36
    assert [table.gone for table in second.tables] == [0, 7]
    cache.release(second)

    # A block that a query at 36 sees is gone, and one at 32 does not see.
    windowed = cache.groups[1].index
    windowed.forget(windowed.match(second.digests[8:9])[0])
    third = sequence("c", [*range(36), 99])
    assert cache.admit(third, spare=0)
    assert third.computed == 32


def test_forks_share_blocks_until_one_writes() -> None:
    cache = KVCache([GroupShape(None, 10, 4, 8), GroupShape(6, 10, 4, 8)], prefix_caching=True)
    parent = sequence("a", [1] * 10)
    assert cache.admit(parent, spare=0)
    compute(cache, parent)
    parent.tokens.append(2)
    child = sequence("b", [1] * 10)
    child.tokens.append(3)

    assert cache.fork(parent, child, spare=0) == []
    assert child.computed == 10
    shared = [p.blocks[c.gone :] for p, c in zip(parent.tables, child.tables, strict=True)]
    assert [c.held for c in child.tables] == shared
    used = cache.used

    copies = cache.prepare(child)
    assert copies == [
        BlockCopy(group, parent.tables[group].blocks[2], child.tables[group].blocks[2]) for group in (0, 1)
    ]
    assert cache.used == used + 2
    assert cache.prepare(parent) == []  # it has the old ones for itself by now
    for one in (parent, child):
        cache.release(one)
    cache.check_integrity()
    assert cache.used == 0


def test_a_fork_with_reserved_blocks_copies_at_once() -> None:
    cache = KVCache([GroupShape(None, 10, 4, 8)], prefix_caching=False)
    parent = sequence("a", [1] * 6, max_tokens=6, reserve=True)
    assert cache.admit(parent, spare=0)
    compute(cache, parent)
    child = sequence("b", [1] * 6, max_tokens=6, reserve=True)
    child.tokens.append(3)

    copies = cache.fork(parent, child, spare=0)

    assert copies == [BlockCopy(0, parent.tables[0].blocks[1], child.tables[0].blocks[1])]
    assert cache.available == 10 - 3 - 2
    assert cache.fork(parent, sequence("c", [1] * 7, max_tokens=20, reserve=True), spare=0) is None
    cache.check_integrity()


@pytest.mark.parametrize("kernels", ["torch", "compiled"])
def test_an_overflow_that_has_left_every_window_is_an_error_all_the_same(
    directory: Callable[[str], Path], kernels: Any
) -> None:
    """What it left behind would come to others with the blocks."""
    path = directory("mistral")
    config = EngineConfig(model=str(path), kernels=kernels, threads=1, prefill_chunk=8, kv_cache_tokens=512)
    model = Decoder.load(open_model(path), torch.float32, torch.device("cpu"), ReferenceKernels())
    model.weights.embedding[3, 5] = torch.nan
    engine = Engine(config, model, Tokenizer.from_directory(path))
    good = prompt_of(300)

    bad, answer = engine.generate([(3, *good), good], GREEDY)

    assert bad.finish_reason is FinishReason.ERROR
    assert answer.finish_reason is FinishReason.LENGTH
    assert engine.generate([good], GREEDY)[0].token_ids == answer.token_ids
    engine.check_integrity()
    assert engine.stats().blocks_used == 0
