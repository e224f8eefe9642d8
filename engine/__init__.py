"""The inference engine: runs one model with continuous batching. Its public names (vLLM's ``LLM`` is ``Engine``, its
``AsyncLLM`` is ``AsyncEngine``):

    from engine import Engine, SamplingParams

Each name is imported on first use, so that ``import engine.api`` does not import torch.
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
"""The modules of the public names that are not in ``engine.api``."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, "engine.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
