"""The package ``engine`` from outside: what it exports, what its import loads, and which settings it refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest

import engine as package
from engine.config import EngineConfig


def test_the_boundary_is_imported_without_torch() -> None:
    code = "import engine.api, engine.config, engine, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_exported_name_exists() -> None:
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError):
        _ = package.Nothing


@pytest.mark.parametrize("field", ["block_size", "max_batch_tokens", "context_length", "threads", "kv_cache_tokens"])
def test_settings_out_of_range_are_refused_by_name(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        EngineConfig(model="x", **{field: 0})  # type: ignore[arg-type]
