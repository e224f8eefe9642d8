"""The embedded models still say what they said when their baseline was written: kernels, tokenizer and template hold.

When this fails after a change of the models or of the held-out set, write the baseline again and look at what changed:
``python -m load_tests.quality --engine --write-baseline``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from load_tests.quality.baseline import SAMPLE, SetBaseline, read_baseline
from load_tests.quality.item import HeldOut, read_held_out
from load_tests.quality.offline import ask_engines
from load_tests.quality.options import BASELINE, HELD_OUT, MODELS, TASKS, QualityOptions
from load_tests.quality.question import stratified
from load_tests.quality.sets import TASKS_MAX_TOKENS
from load_tests.quality.smoke import broken

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(name="held_out", scope="module")
def _held_out() -> HeldOut:
    return read_held_out(ROOT / HELD_OUT)


@pytest.fixture(name="baseline", scope="module")
def _baseline(held_out: HeldOut) -> SetBaseline:
    baseline = read_baseline(ROOT / BASELINE).sets[TASKS]
    baseline.require(held_out, TASKS_MAX_TOKENS)
    return baseline


def signs(
    tier: str, per_cell: int, held_out: HeldOut, baseline: SetBaseline, models_dir: Path = ROOT / MODELS
) -> list[str]:
    """What speaks against a tier."""
    options = QualityOptions(engine=True, models=(tier,), models_dir=models_dir)
    outcomes = ask_engines(options, stratified(held_out.items, per_cell), TASKS_MAX_TOKENS, lambda: None)
    return broken(outcomes, held_out, baseline)


@pytest.mark.parametrize("tier", ["fast", "balanced", "frontier"])
def test_a_tier_answers_as_it_did(tier: str, held_out: HeldOut, baseline: SetBaseline) -> None:
    assert signs(tier, SAMPLE, held_out, baseline) == []


def noise(model: Path) -> None:
    """A twentieth of each matrix's own spread, as a kernel adds that loses too many bits."""
    torch.manual_seed(0)
    tensors = load_file(model / "model.safetensors")
    noisy = {name: (t + 0.05 * t.float().std() * torch.randn_like(t)).to(t.dtype) for name, t in tensors.items()}
    save_file({name: t if t.ndim == 1 else noisy[name] for name, t in tensors.items()}, model / "model.safetensors")


def rotation(model: Path) -> None:
    """Positions that turn at another pace."""
    config = json.loads((model / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] *= 0.1
    (model / "config.json").write_text(json.dumps(config))


def template(model: Path) -> None:
    """Turns that do not end."""
    path = model / "chat_template.jinja"
    text = path.read_text()
    assert "<|end|>" in text
    path.write_text(text.replace("<|end|>", ""))


@pytest.mark.parametrize("damage", [noise, rotation, template])
def test_a_damaged_model_does_not_pass(
    damage: Callable[[Path], None], tmp_path: Path, held_out: HeldOut, baseline: SetBaseline
) -> None:
    shutil.copytree(ROOT / MODELS / "fast", tmp_path / "fast")
    damage(tmp_path / "fast")

    assert signs("fast", SAMPLE, held_out, baseline, tmp_path)
