"""An engine on the compiled kernels, plain enough to compare its numbers bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine import Engine


def make_engine(path: Path, **config: Any) -> Engine:
    """Keywords are fields of EngineConfig."""
    settings = {"kernels": "compiled", "threads": 1, "prefix_caching": False, "kv_cache_tokens": 4096}
    return Engine.from_pretrained(path, **settings | config)
