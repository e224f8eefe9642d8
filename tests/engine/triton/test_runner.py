"""The engine on Triton's kernels says what it says on torch, token by token."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine import Engine, FinishReason, SamplingParams
from engine.kernels.triton.runner import TritonRunner, decode_sizes
from engine.scheduler.step_plan import Chunk
from tests.engine.families import CONFIGS, SETTINGS, disturb
from tests.engine.models import VOCAB, ragged_prompts, write

# Rows of padding hold whatever memory held, and numpy, which computes here, tells of overflows among them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.*"),
    pytest.mark.usefixtures("clear_choices"),
]

FAMILIES = ("llama", "qwen3", "gemma2", "olmo2", "gpt2", "qwen3-moe")
PROMPTS = ragged_prompts(VOCAB)[1:4]  # and so a row of padding beside them
GREEDY = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)
SAMPLED = SamplingParams(temperature=0.9, top_k=40, top_p=0.95, max_tokens=5, seed=5, ignore_eos=True)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def make(name: str) -> Path:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="eager").eval()
        disturb(model)
        path = tmp_path_factory.mktemp("triton") / name
        write(model, path)
        return path

    return make


@pytest.fixture
def make(directory: Callable[[str], Path], device: torch.device) -> Callable[..., Engine]:
    """An engine over the family of that name."""

    def engine(name: str = "llama", **config: Any) -> Engine:
        given = {"kernels": "triton", "device": device.type, "kv_cache_tokens": 2048, "max_sequences": 16}
        return Engine.from_pretrained(directory(name), **given | SETTINGS.get(name, {}) | config)

    return engine


def tokens(engine: Engine, prompts: Iterable[list[int]], params: Any = GREEDY) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in engine.generate(list(prompts), params)]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_kind_of_model(make: Callable[..., Engine], name: str) -> None:
    expected = tokens(make(name, kernels="torch"), PROMPTS)

    engine = make(name, prefill_chunk=24)

    assert tokens(engine, PROMPTS) == expected
    engine.check_integrity()


@pytest.mark.parametrize(
    "config",
    [
        {"deterministic": True},
        {"kv_cache_tokens": 48, "block_size": 16},
        {"kv_dtype": "int8"},
        {"weight_dtype": "int8"},
        {"speculative_tokens": 3},
    ],
    ids=lambda config: next(iter(config)),
)
def test_every_setting(make: Callable[..., Engine], config: dict[str, Any]) -> None:
    own = {key: value for key, value in config.items() if key.endswith("dtype")}
    params = [GREEDY, SAMPLED, GREEDY]
    expected = tokens(make(kernels="torch", **own), PROMPTS, params)

    engine = make(**config)

    assert tokens(engine, PROMPTS, params) == expected
    engine.check_integrity()


@pytest.mark.parametrize(
    "wish",
    [
        {"temperature": 1.0},
        {"temperature": 1.0, "min_p": 0.1},
        {"temperature": 0.8, "typical_p": 0.7},
        {"temperature": 0.8, "n": 3},
        {"temperature": 0, "logprobs": 2},
        {"temperature": 0, "repetition_penalty": 1.2},
    ],
    ids=lambda wish: next(reversed(wish)),
)
def test_every_way_to_choose(make: Callable[..., Engine], wish: dict[str, Any]) -> None:
    """Beside somebody greedy: rows that the device draws, and steps in which it does not."""
    params = [SamplingParams(max_tokens=4, seed=9, ignore_eos=True, **wish), GREEDY]
    expected = tokens(make(kernels="torch"), PROMPTS[:2], params)

    assert tokens(make(), PROMPTS[:2], params) == expected


def test_a_warm_prefix(make: Callable[..., Engine]) -> None:
    engine = make()
    warm = ragged_prompts(VOCAB)[5]
    cold = tokens(engine, [warm])

    assert tokens(engine, [warm]) == cold
    assert engine.stats().cached_tokens > 0


def test_decodes_are_launched_before_they_are_asked_for(
    make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the first, while nobody comes or goes; and nothing is computed twice."""
    launched: list[tuple[int, bool]] = []
    launch = TritonRunner._launch_decodes

    def recording(self: TritonRunner, chunks: tuple[Chunk, ...], unknown: bool) -> Any:
        launched.append((len(chunks), unknown))
        return launch(self, chunks, unknown)

    monkeypatch.setattr(TritonRunner, "_launch_decodes", recording)

    tokens(make(), PROMPTS[:2], SamplingParams(temperature=0, max_tokens=6, ignore_eos=True))

    assert launched == [(2, True)] * 5


def test_an_answer_that_ends_early_leaves_the_others_as_they_are(make: Callable[..., Engine]) -> None:
    """Its next token had been launched already."""
    alone = tokens(make(), [PROMPTS[0]])[0]
    stopped = SamplingParams(temperature=0, max_tokens=5, stop_token_ids=(alone[2],), ignore_eos=True)
    engine = make()

    ended, whole = engine.generate([PROMPTS[0], PROMPTS[1]], [stopped, GREEDY])

    assert ended.finish_reason is FinishReason.STOP
    assert whole.token_ids == tokens(make(), [PROMPTS[1]])[0]
    engine.check_integrity()


def test_what_is_no_number_ends_its_sequence_alone(
    directory: Callable[[str], Path], make: Callable[..., Engine], tmp_path: Path, device: torch.device
) -> None:
    """Its next step is under way by then."""
    shutil.copytree(directory("llama"), tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.embed_tokens.weight"][5] = torch.inf
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    engine = Engine.from_pretrained(
        tmp_path, kernels="triton", device=device.type, kv_cache_tokens=2048, max_sequences=16
    )

    sound, unsound = engine.generate([PROMPTS[1], [6, 5]], GREEDY)

    assert sound.token_ids == tokens(make(), [PROMPTS[1]])[0]
    assert unsound.finish_reason is FinishReason.ERROR
    engine.check_integrity()


def test_the_cpu_is_refused_outside_of_the_interpreter(
    directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    with pytest.raises(ValueError, match="triton needs device cuda"):
        Engine.from_pretrained(directory("llama"), kernels="triton", kv_cache_tokens=256)


def test_sizes_of_decodes_reach_the_most() -> None:
    for most in (1, 3, 8, 100, 256, 300):
        sizes = decode_sizes(most)

        assert sizes == sorted(set(sizes))
        assert sizes[-1] == most
