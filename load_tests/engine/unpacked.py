"""An engine whose kernels multiply a GGUF file's matrices unpacked, to compare with those as they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine import Engine
from engine.backend import load_model
from engine.config import EngineConfig
from engine.model.source import open_model
from engine.quant.quantise import dequantised_model
from engine.token_id_tokenizer import load_tokenizer


def unpacked_engine(model: str | Path, **settings: Any) -> Engine:
    """Returns an engine with all matrices in ``settings["dtype"]``. ``settings``: fields of EngineConfig. On torch's
    kernels, which unpack matrices themselves, a comparison takes minutes instead of seconds."""
    config, source = EngineConfig(model=str(model), **settings), open_model(Path(model))
    stored = load_model(config, source)
    return Engine(config, stored.with_weights(dequantised_model(stored.weights)), load_tokenizer(source))
