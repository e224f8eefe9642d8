"""Models made once per run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import Engine
from tests.engine.models import save_model

MakeEngine = Callable[..., Engine]


@pytest.fixture(scope="session", autouse=True)
def single_thread() -> None:
    """Tiny operations are slower on two threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where Triton's kernels run: a card if there is one, else the CPU, in Triton's interpreter."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Directory of the tiny model of that name."""

    @cache
    def path(name: str) -> Path:
        return save_model(name, tmp_path_factory.mktemp("models") / name)

    return path


@pytest.fixture
def make_engine(model_path: Callable[[str], Path]) -> MakeEngine:
    """A new engine over a tiny model; keywords are fields of EngineConfig."""

    def make(name: str = "llama-tied", **config: Any) -> Engine:
        return Engine.from_pretrained(model_path(name), **{"kv_cache_tokens": 4096, **config})

    return make
