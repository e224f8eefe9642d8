"""``Trunk``: the lower layers of the base model, which stay as they are."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from safety.decoder.gguf_file import GGUFFile


def llama_config(file: GGUFFile) -> LlamaConfig:
    """Returns the configuration of the whole model in ``file``. Raises UnsupportedDecoderError."""
    shape = file.architecture()
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.max_tokens,
        rms_norm_eps=shape.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
    )
    config._attn_implementation = "sdpa"  # causal without a mask; layers outside of a model choose none by themselves
    return config


class Trunk:
    """The first ``layers`` layers of ``path``, a GGUF file, in bfloat16."""

    def __init__(self, path: Path, layers: int) -> None:
        """Raises OSError, and UnsupportedDecoderError for a file of another kind of model."""
        file = GGUFFile(path)
        config = llama_config(file)
        config.num_hidden_layers = layers
        self._model: LlamaModel = LlamaModel(config).bfloat16().eval()
        self._model.load_state_dict(
            {name: torch.from_numpy(file.dense(name)) for name in self._model.state_dict() if name != "norm.weight"},
            strict=False,
        )
        self._model.norm = torch.nn.Identity()

    @torch.no_grad()
    def states(self, tokens: Tensor) -> Tensor:
        """Returns the states of ``tokens``, int64 [rows, tokens], after the trunk: bfloat16 [rows, tokens, hidden]."""
        states: Tensor = self._model(tokens, use_cache=False).last_hidden_state
        return states
