"""A tiny random model of each family, in which all that the family can do matters, and what transformers makes of it.

Windows and original contexts are shorter than sequences, caps low enough to bend, norms and biases far from neutral.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence
from engine.step_result import StepResult
from tests.engine.margins import MIN_MARGIN
from tests.engine.models import LLAMA3_ROPE, SHAPE, write

_WIDE = {key: value for key, value in SHAPE.items() if key != "head_dim"}  # heads of 16, scores no larger than others
_WIDE |= {"hidden_size": 64, "initializer_range": 0.2}
_GPT2 = {"vocab_size": SHAPE["vocab_size"], "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
_GPT2 |= {key: SHAPE[key] for key in ("initializer_range", "bos_token_id", "eos_token_id")}
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
_PARTIAL = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
# Copied for each config: transformers writes the original context into the dictionary it is given.
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5],
    "long_factor": [1.0, 1.5, 2.5, 4.0, 6.0, 8.0],
    "partial_rotary_factor": 0.75,
}
_GEMMA3_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    "full_attention": {"rope_type": "linear", "rope_theta": 1e5, "factor": 4.0},
}
_MOE: dict[str, Any] = {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 24}

CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True, rope_parameters=LLAMA3_ROPE),
    "mistral": MistralConfig(**SHAPE, sliding_window=22),
    "qwen2": Qwen2Config(
        **SHAPE | {"num_hidden_layers": 3},
        use_sliding_window=True,
        sliding_window=20,
        max_window_layers=1,
        rope_parameters=_YARN,
    ),
    "qwen3": Qwen3Config(**SHAPE | {"head_dim": 16}, tie_word_embeddings=True),
    "gemma2": Gemma2Config(
        **SHAPE | {"head_dim": 16},
        query_pre_attn_scalar=20,
        sliding_window=24,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    ),
    "gemma3": Gemma3TextConfig(
        **SHAPE | {"head_dim": 16, "num_hidden_layers": 3},
        query_pre_attn_scalar=20,
        sliding_window=24,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters=_GEMMA3_ROPE,
    ),
    "phi3": Phi3Config(**_WIDE, sliding_window=30, rope_parameters=_PARTIAL),
    "phi3-long": Phi3Config(**_WIDE, original_max_position_embeddings=32, rope_parameters=deepcopy(_LONG)),
    "phi3-short": Phi3Config(
        **_WIDE | {"max_position_embeddings": 1024},
        original_max_position_embeddings=256,
        rope_parameters=deepcopy(_LONG),
    ),
    "gpt2": GPT2Config(**_GPT2, scale_attn_by_inverse_layer_idx=True),
    "olmo2": Olmo2Config(**SHAPE, attention_bias=True),
    "mixtral": MixtralConfig(**SHAPE, sliding_window=40, num_local_experts=5, num_experts_per_tok=2),
    "qwen3-moe": Qwen3MoeConfig(
        **SHAPE | {"num_hidden_layers": 4}, **_MOE, norm_topk_prob=True, decoder_sparse_step=2, mlp_only_layers=[1]
    ),
    "qwen3-moe-window": Qwen3MoeConfig(**SHAPE, **_MOE, use_sliding_window=True, sliding_window=19),
}
Recorded = dict[tuple[str, int], Tensor]
"""Logits that were sampled from, by request and position."""


def record(monkeypatch: pytest.MonkeyPatch, runner: type[Any]) -> Recorded:
    """What every runner of that class gives from now on, to sequences that all want it."""
    monkeypatch.setattr(Sequence, "takes_largest", property(lambda _: False))
    found: Recorded = {}
    run = runner.run

    def recording(self: Any, chunks: Iterable[Chunk]) -> StepResult:
        result: StepResult = run(self, chunks)
        rows = zip(result.sampled, result.logits, strict=True)
        found.update({(chunk.sequence.request_id, chunk.end): row for chunk, row in rows})
        return result

    monkeypatch.setattr(runner, "run", recording)
    return found


def write_family(name: str, path: Path, **shape: int) -> Path:
    """Writes a model of that family with other sizes than CONFIGS has; keywords are fields of its configuration."""
    torch.manual_seed(0)
    config = type(CONFIGS[name])(**CONFIGS[name].to_dict() | shape)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    disturb(model)
    write(model, path)
    return path


SETTINGS: dict[str, dict[str, Any]] = {"phi3-short": {"context_length": 256}}
"""Fields of EngineConfig that a model needs to be what transformers takes it for."""


class Oracle:
    """One model as transformers runs it: eagerly, in float32, without a cache."""

    def __init__(self, name: str, directory: Path) -> None:
        torch.manual_seed(0)
        self.directory = directory
        self._model: Any = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="eager").eval()
        disturb(self._model)
        write(self._model, directory, max_shard_size="40KB")
        self._routing: list[Tensor] = []
        for module in self._model.modules():
            if type(module).__name__.endswith("Router"):
                module.register_forward_hook(self._note_routing)
        self.logits = cache(self._logits)

    def _logits(self, tokens: tuple[int, ...]) -> Tensor:
        """[len(tokens), vocab] float32 after each of ``tokens``. Raises AssertionError if rounding might send one of
        them to other experts."""
        self._routing.clear()
        with torch.inference_mode():
            logits: Tensor = self._model(torch.tensor([tokens]), use_cache=False).logits[0]
        margin = min((float(margins.min()) for margins in self._routing), default=torch.inf)
        assert margin >= MIN_MARGIN, f"a token's choice of experts has a margin of {margin:g}"
        return logits

    def _note_routing(self, router: Any, inputs: tuple[Tensor, ...], _: object) -> None:
        """Keeps by how much the scores of each token's experts exceed that of the best other one, [tokens]."""
        x = inputs[0].reshape(-1, inputs[0].shape[-1])
        chosen = (x @ router.weight.T).topk(router.top_k + 1).values
        self._routing.append(chosen[:, -2] - chosen[:, -1])


@torch.no_grad()
def disturb(model: Any) -> None:
    """Transformers starts norms at one and biases at zero, where leaving them out would go unnoticed."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(std=0.3)
        elif "norm" in name or "ln_" in name:
            parameter.add_(torch.rand_like(parameter) - 0.5)
