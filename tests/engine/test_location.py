"""Models are found by path or in an installed package, and nowhere else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from engine.model.location import ModelDigestError, ModelNotFoundError, check_digest, locate


def test_a_path_is_itself(tmp_path: Path) -> None:
    assert locate(str(tmp_path)) == tmp_path


def test_a_file_of_a_package_is_found_without_its_code() -> None:
    found = locate("package:safetensors/safetensors/py.typed")

    assert found.name == "py.typed"
    assert found.is_file()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/no/such/model", "/no/such/model does not exist"),
        ("package:no-such-package/model.gguf", "the package 'no-such-package' is not installed"),
        ("package:", "the package '' is not installed"),
        ("package:safetensors/none.gguf", r"the package 'safetensors' [\d.]+ has no file 'none.gguf'"),
        ("package:safetensors/../../../../etc/passwd", "has no file"),
        ("package:safetensors//etc/passwd", "has no file"),
    ],
)
def test_what_is_not_there_is_said(model: str, message: str) -> None:
    with pytest.raises(ModelNotFoundError, match=message):
        locate(model)


def test_a_file_with_another_digest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF and more")
    other = hashlib.sha256(b"GGUF").hexdigest()

    with pytest.raises(ModelDigestError, match=f"not {other}: damaged or another model"):
        Engine.from_config(EngineConfig(model=str(path), model_sha256=other))


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_a_split_file_with_another_part_is_refused(changed: int, tmp_path: Path) -> None:
    parts = [tmp_path / f"model-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    for number, part in enumerate(parts):
        part.write_bytes(b"GGUF" + bytes([number]) * 100)
    digest = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    check_digest(parts, digest)

    parts[changed].write_bytes(b"GGUF" + b"x" * 100)

    with pytest.raises(ModelDigestError, match=f"and the 2 files after it have .*not {digest}: damaged or another"):
        Engine.from_config(EngineConfig(model=str(parts[0]), model_sha256=digest))


@pytest.mark.parametrize("digest", ["", "ABC", "a" * 63, "A" * 64])
def test_a_digest_is_64_hexadecimal_digits(digest: str) -> None:
    with pytest.raises(ValueError, match="model_sha256 must be 64 lower-case hexadecimal digits"):
        EngineConfig(model="any", model_sha256=digest)
