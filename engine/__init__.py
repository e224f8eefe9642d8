"""Manta's inference engine: tokens in, tokens out.

    from engine import Engine, SamplingParams

Names are loaded on first use, so that ``import engine.api`` does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.api import (
        BeamSearch,
        ContextLengthError,
        Conversation,
        Delta,
        EngineDeadError,
        EngineError,
        EngineStats,
        FinishReason,
        GenerationRequest,
        Grammar,
        Message,
        ModelInfo,
        OverloadedError,
        RequestError,
        SamplingParams,
        Usage,
    )
    from engine.async_engine import AsyncEngine
    from engine.completion import Completion
    from engine.config import EngineConfig
    from engine.engine import Engine

__all__ = [
    "AsyncEngine",
    "BeamSearch",
    "Completion",
    "ContextLengthError",
    "Conversation",
    "Delta",
    "Engine",
    "EngineConfig",
    "EngineDeadError",
    "EngineError",
    "EngineStats",
    "FinishReason",
    "GenerationRequest",
    "Grammar",
    "Message",
    "ModelInfo",
    "OverloadedError",
    "RequestError",
    "SamplingParams",
    "Usage",
]

_ELSEWHERE = {
    "AsyncEngine": "engine.async_engine",
    "Completion": "engine.completion",
    "Engine": "engine.engine",
    "EngineConfig": "engine.config",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, "engine.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
