"""The version of a model changes with its files and the engine's settings, and with nothing else."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from cluster.model_version import SAMPLE_BYTES, SAMPLES, has_model_files, model_version
from engine.config import EngineConfig

LARGE = 2 * SAMPLES * SAMPLE_BYTES


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(bytes(LARGE))
    (directory / "README.md").write_text("words")
    return directory


def version(model: Path, **settings: object) -> str:
    return model_version(EngineConfig(model=str(model), **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("place", [0, LARGE - 1])
def test_other_weights_are_another_version(model: Path, place: int) -> None:
    before = version(model)
    with (model / "model.safetensors").open("r+b") as file:
        file.seek(place)
        file.write(b"x")
    assert version(model) != before


def test_other_small_files_and_settings_are_another_version(model: Path) -> None:
    before = version(model)
    assert version(model, dtype="bfloat16") != before
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert version(model) != before


def test_another_text_of_the_chat_template_is_another_version(model: Path, tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    template.write_text("{{ messages }}")
    before = version(model, chat_template=str(template))
    template.write_text("{{ messages[0] }}")
    assert version(model, chat_template=str(template)) != before


def test_a_setting_that_is_not_used_leaves_the_version_as_it_was() -> None:
    """Caches and other releases know a model by it."""
    engine = EngineConfig(model="/nowhere")
    settings = {name: value for name, value in asdict(engine).items() if name not in ("model", "chat_template")}
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    assert model_version(engine) == digest.hexdigest()[:16]


def test_the_place_of_the_chat_template_is_none_of_the_version(model: Path, tmp_path: Path) -> None:
    for name in ("one.jinja", "other.jinja"):
        (tmp_path / name).write_text("{{ messages }}")
    found = {version(model, chat_template=str(tmp_path / name)) for name in ("one.jinja", "other.jinja")}
    assert len(found) == 1
    assert found != {version(model)}


def test_another_part_of_a_split_file_is_another_version(tmp_path: Path) -> None:
    parts = [tmp_path / f"model-{number:05}-of-00002.gguf" for number in (1, 2)]
    for part in parts:
        part.write_bytes(b"GGUF")
    before = version(parts[0])
    parts[1].write_bytes(b"GGUX")
    assert version(parts[0]) != before


def test_what_the_model_does_not_read_is_none(model: Path) -> None:
    before = version(model)
    (model / "README.md").write_text("other words")
    shutil.copystat(model / "config.json", model / "model.safetensors")  # another time of change
    assert version(model) == before


def test_a_model_that_is_not_here_has_the_version_of_its_settings(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert version(gone) == version(gone)
    assert version(gone, dtype="bfloat16") != version(gone)


def test_without_its_files_the_version_of_a_model_is_not_known(model: Path, tmp_path: Path) -> None:
    assert has_model_files(EngineConfig(model=str(model)))
    assert not has_model_files(EngineConfig(model="/nowhere"))
    assert not has_model_files(EngineConfig(model=str(model), chat_template=str(tmp_path / "gone.jinja")))
