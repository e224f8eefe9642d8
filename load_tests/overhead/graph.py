"""The real graph around stub engines: a builder for Serve, and the config that names it."""

# No postponed annotations: Serve reads the builder's annotation to validate its arguments.

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ray.serve.deployment import Application

from cluster.app import build_with
from cluster.config import MantaConfig
from load_tests.overhead.factory import StubFactory

DEV = Path(__file__).resolve().parents[2] / "deployments" / "dev.yaml"


class StubGraphConfig(MantaConfig):
    """The graph's config, the step of its stub engines, and whether their answers differ from each other."""

    step_s: float
    varied: bool = False


def build(config: StubGraphConfig) -> Application:
    """What ``cluster.app:build`` builds, with a stub in place of every model."""
    return build_with(config, StubFactory(config.step_s, config.varied))


def stub_config(
    step_s: float, *, safety: bool = False, varied: bool = False, telemetry: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A Serve config file: dev.yaml with the tier ``fast`` alone, so one Router, one replica, one lane.

    Without ``safety`` no text is checked: the classifier computes more for an answer than all of the rest.
    ``telemetry`` replaces the settings of that name.
    """
    config: dict[str, Any] = yaml.safe_load(DEV.read_text(encoding="utf-8"))
    application = config["applications"][0]
    application["import_path"] = "load_tests.overhead.graph:build"
    arguments = application["args"]
    # No auto: the forecaster of dev.yaml is fitted to all its tiers. Prices of tiers that are not served are refused.
    router = arguments["router"]
    prices = {**router["prices"], "tiers": {"fast": router["prices"]["tiers"]["fast"]}}
    application["args"] = {
        "router": {**router, "auto": None, "prices": prices},
        "ingress": arguments["ingress"],
        "safety": arguments["safety"] if safety else {},
        "tiers": [tier for tier in arguments["tiers"] if tier["name"] == "fast"],
        "step_s": step_s,
        "varied": varied,
        **({} if telemetry is None else {"telemetry": dict(telemetry)}),
    }
    return config
