"""``router.auto.forecast``: read when the application is built, and refused there with the name of the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.app import build, read_forecaster
from cluster.config import MantaConfig
from router.tiers.quality_forecast import Forecaster
from tests.cluster.graph import dev_config

TIERS = ("fast", "balanced", "frontier")
FITTED = Forecaster(TIERS, (0.0, 1.0, 2.0), {"digits=4": (-1.0, -1.0, 0.0)}, {})


def config(path: Path | None) -> MantaConfig:
    arguments = dev_config()
    arguments["router"]["auto"] = {"forecast": None if path is None else str(path)}
    return MantaConfig.model_validate(arguments)


def test_a_config_without_a_forecast_has_no_forecaster() -> None:
    assert read_forecaster(config(None)) is None


def test_the_file_named_is_read(tmp_path: Path) -> None:
    path = tmp_path / "auto.json"
    path.write_text(FITTED.to_json())
    assert read_forecaster(config(path)) == FITTED


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file"),
        ("{}", "no forecaster's file: format: Field required"),
        (b"\xff", "no forecaster's file"),
        (Forecaster(TIERS[:1], (0.0,), {}, {}).to_json(), "fitted to the tiers fast, but configured are fast, bal"),
        (Forecaster(TIERS[::-1], (0.0,) * 3, {}, {}).to_json(), "fitted to the tiers frontier, balanced, fast, but"),
    ],
)
def test_a_file_that_cannot_serve_stops_the_start(tmp_path: Path, content: str | bytes | None, complaint: str) -> None:
    path = tmp_path / "auto.json"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=rf"router\.auto\.forecast: .*auto\.json.*{complaint}"):
        build(config(path))
