"""A tier that is optional is left out where its model is missing, with all that refers to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.config import MantaConfig
from cluster.local.serve_config_loader import optional_models
from cluster.optional_tiers import missing_tiers, without_tiers


def config(tmp_path: Path, **router: Any) -> MantaConfig:
    keys = [{"key": "sk-all", "tenant": "a", "team": "t"}]
    return MantaConfig.model_validate(
        {
            "tiers": [
                {"name": "small", "engine": {"model": str(tmp_path)}},
                {"name": "large", "optional": True, "engine": {"model": str(tmp_path / "none.gguf")}},
                {"name": "packed", "optional": True, "engine": {"model": "package:no-such-package/model.gguf"}},
            ],
            "router": {"keys": keys, **router},
        }
    )


def test_what_is_missing_is_found_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert missing_tiers(config(tmp_path)) == ["large", "packed"]

    assert "without the optional tier large" in caplog.text
    assert "the package 'no-such-package' is not installed" in caplog.text


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "none.gguf").touch()

    assert missing_tiers(config(tmp_path)) == ["packed"]


def test_what_refers_to_a_missing_tier_goes_with_it(tmp_path: Path) -> None:
    keys = [
        {"key": "sk-all", "tenant": "a", "team": "t"},
        {"key": "sk-some", "tenant": "a", "team": "t", "tiers": ["small", "large"]},
        {"key": "sk-none", "tenant": "a", "team": "t", "tiers": ["large"]},
    ]
    whole = config(
        tmp_path,
        keys=keys,
        aliases={"gpt-big": "large", "gpt-small": "small", "gpt": "auto"},
        auto={"thresholds": {"large": 0.5}},
    )

    left = without_tiers(whole, ["large", "packed"])

    assert [tier.name for tier in left.tiers] == ["small"]
    assert left.router.aliases == {"gpt-small": "small", "gpt": "auto"}
    assert [(key.key, key.tiers) for key in left.router.keys] == [("sk-all", None), ("sk-some", ("small",))]
    assert left.router.auto is not None
    assert left.router.auto.thresholds == {}


def test_the_first_tier_that_is_left_has_no_threshold(tmp_path: Path) -> None:
    whole = config(tmp_path, auto={"thresholds": {"large": 0.4, "packed": 0.5}})

    left = without_tiers(whole, ["small"])

    assert left.router.auto is not None
    assert left.router.auto.thresholds == {"packed": 0.5}


def test_a_service_without_a_key_does_not_start(tmp_path: Path) -> None:
    whole = config(tmp_path, keys=[{"key": "sk-none", "tenant": "a", "team": "t", "tiers": ["large"]}])

    with pytest.raises(ValueError, match=r"router\.keys: no key may use another tier than large"):
        without_tiers(whole, ["large"])


def test_a_service_without_a_tier_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tiers"):
        without_tiers(config(tmp_path), ["small", "large", "packed"])


def test_nothing_changes_if_nothing_is_missing(tmp_path: Path) -> None:
    whole = config(tmp_path)

    assert without_tiers(whole, []) is whole


@pytest.mark.parametrize("as_list", [True, False])
def test_the_launcher_knows_what_is_optional(as_list: bool) -> None:
    rows: dict[str, dict[str, Any]] = {
        "fast": {"engine": {"model": "models/fast"}},
        "general": {"engine": {"model": "package:some/model.gguf"}, "optional": True},
    }
    tiers = [{"name": name, **row} for name, row in rows.items()] if as_list else rows

    second = {"model": "package:some/model.gguf", "optional": True}
    arguments: dict[str, Any] = {"tiers": tiers, "embedder": {"model": "package:some/model", "optional": True}}
    arguments["safety"] = {"classifier": {"model": "models/safety", "second_opinion": second}}
    assert optional_models({"applications": [{"args": arguments}]}) == {
        "general": "package:some/model.gguf",
        "embeddings": "package:some/model/modules.json",
        "the classifier's second opinion": "package:some/model.gguf",
    }
    arguments["embedder"] = {"model": "models/embedder"}
    arguments["safety"] = {"classifier": {"model": "models/safety", "second_opinion": {"model": "some/model.gguf"}}}
    assert optional_models({"applications": [{"args": arguments}]}).keys() == {"general"}
