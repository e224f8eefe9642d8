"""``model_version``: the version by which two models with the same name are distinguished."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

from engine.config import EngineConfig
from engine.gguf.split_parts import split_parts
from engine.model.location import ModelNotFoundError, locate

SUFFIXES = frozenset({".gguf", ".jinja", ".json", ".model", ".safetensors", ".txt"})
PATHS = frozenset({"chat_template", "model"})  # settings whose files count, not where they are
SAMPLE_BYTES = 64 * 1024
SAMPLES = 32  # of one file, evenly spread; a smaller one is read whole
DIGITS = 16  # hexadecimal


def model_version(engine: EngineConfig) -> str:
    """Returns a digest of the settings of an engine, and of the files of its model and its chat template: names, sizes
    and samples of their contents. The same files on another machine give the same digest. Weights of gigabytes are not
    read whole, since any training changes all of them. For a model that is not on this machine, the settings alone are
    digested."""
    settings = {name: value for name, value in asdict(engine).items() if name not in PATHS}
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    if engine.chat_template is not None:
        _add(digest, "chat_template", Path(engine.chat_template))
    try:
        place = locate(engine.model)
    except ModelNotFoundError:
        return digest.hexdigest()[:DIGITS]
    for path in _files(place):
        _add(digest, path.name, path)
    return digest.hexdigest()[:DIGITS]


def has_model_files(engine: EngineConfig) -> bool:
    """Returns whether the files that ``model_version`` digests are on this machine. Elsewhere their version may be
    another one."""
    try:
        locate(engine.model)
    except ModelNotFoundError:
        return False
    return engine.chat_template is None or Path(engine.chat_template).is_file()


def _add(digest: hashlib._Hash, name: str, path: Path) -> None:
    """Adds the name, the size and samples of a file; of a file that is not on this machine the name alone."""
    size = path.stat().st_size if path.is_file() else 0
    digest.update(f"{name}:{size}:".encode())
    if size:
        with path.open("rb") as file:
            for start in _starts(size):
                file.seek(start)
                digest.update(file.read(SAMPLE_BYTES))


def _files(place: Path) -> list[Path]:
    """Returns the files of the model: those of a directory, the single file, or all parts of a split one."""
    if place.is_dir():
        return sorted(path for path in place.iterdir() if path.suffix in SUFFIXES and path.is_file())
    return [part for part in split_parts(place) if part.is_file()]


def _starts(size: int) -> list[int]:
    """Returns where the samples of a file of ``size`` bytes begin."""
    if size <= SAMPLES * SAMPLE_BYTES:
        return list(range(0, size, SAMPLE_BYTES))
    return [(size - SAMPLE_BYTES) * each // (SAMPLES - 1) for each in range(SAMPLES)]
