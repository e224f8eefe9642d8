"""Models made once per run."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import Engine
from engine.kernels.cpu import tiles
from engine.kernels.cpu.compiler import built
from engine.kernels.cpu.library import loaded
from engine.kernels.cpu.tiles import Tiles
from tests.engine.gguf_files import SavedGGUF, Type
from tests.engine.kernel_builds import LibraryOf, UseTiles, built_with
from tests.engine.margins import Choices
from tests.engine.models import save_model
from tests.engine.ranks import stop_fork_server

MakeEngine = Callable[..., Engine]


@pytest.fixture(scope="session", autouse=True)
def single_thread() -> None:
    """Tiny operations are slower on two threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> Iterator[None]:
    """Ends with the tests of this folder, if one of them has started it."""
    yield
    stop_fork_server()


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


@pytest.fixture(scope="session")
def gguf_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file of a tiny Llama."""
    return SavedGGUF("llama", Type.Q4_1, tmp_path_factory.mktemp("gguf")).path


@pytest.fixture(scope="session")
def lesser_library() -> Callable[[str], ctypes.CDLL]:
    """The compiled kernels for a processor that lacks something, by the flag that says so to a compiler, one of LESSER.
    Skips where this processor is another kind."""

    @cache
    def library(flag: str) -> ctypes.CDLL:
        if platform.machine() != "x86_64" or ("v4" in flag and not torch.cpu._is_avx512_supported()):
            pytest.skip(f"this processor cannot run what {flag} makes")
        return loaded(built_with(flag))

    return library


@pytest.fixture(scope="session")
def library_of() -> LibraryOf:
    """The kernels for those registers; skips where the processor or the system has none."""

    @cache
    def library(registers: Tiles) -> ctypes.CDLL:
        if registers is Tiles.HARDWARE and (reason := tiles._missing()) is not None:
            pytest.skip(f"no tile registers: {reason}")
        return loaded(built(registers=registers))

    return library


@pytest.fixture
def use_tiles(library_of: LibraryOf, monkeypatch: pytest.MonkeyPatch) -> UseTiles:
    """Engines made from now on have those registers."""

    def use(registers: Tiles) -> None:
        library = library_of(registers)
        monkeypatch.setattr("engine.kernels.cpu.runner.loaded", lambda: library)

    return use


@pytest.fixture
def make_engine(model_path: Callable[[str], Path]) -> Iterator[MakeEngine]:
    """A new engine over a tiny model, closed after the test; keywords are fields of EngineConfig."""
    made: list[Engine] = []

    def make(name: str = "llama-tied", **config: Any) -> Engine:
        made.append(Engine.from_pretrained(model_path(name), **{"kv_cache_tokens": 4096, **config}))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> Choices:
    """The margins of what is drawn in this test."""
    return Choices(monkeypatch)


@pytest.fixture
def clear_choices(choices: Choices) -> Iterator[None]:
    """For tests that compare tokens of two computations: fails where rounding might turn a choice."""
    yield
    choices.check()
