"""The real graph around stub engines, in a process of its own: ``python -m load_tests.overhead.graph PORT STEP_S``."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path
from typing import Any

import ray
import yaml
from ray import serve

from cluster.app import build_with
from cluster.config import MantaConfig
from load_tests.overhead.factory import StubFactory

DEV = Path(__file__).resolve().parents[2] / "deployments" / "dev.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m load_tests.overhead.graph", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("step_s", type=float, help="seconds between tokens of the stub engine")
    options = parser.parse_args()
    stop = threading.Event()
    ray.init(log_to_driver=False)  # the access log of thousands of requests would cost more than the graph
    signal.signal(signal.SIGINT, lambda *_: stop.set())  # not SIGTERM, which Ray keeps for itself
    serve.start(http_options={"host": "127.0.0.1", "port": options.port})
    graph = build_with(MantaConfig.model_validate(stub_config()), StubFactory(options.step_s))
    serve.run(graph, name="manta", route_prefix="/")
    stop.wait()
    serve.shutdown()
    ray.shutdown()


def stub_config() -> dict[str, Any]:
    """The arguments of dev.yaml with the tier ``fast`` alone: one Router, one replica, one lane."""
    arguments: dict[str, Any] = yaml.safe_load(DEV.read_text(encoding="utf-8"))["applications"][0]["args"]
    return {**arguments, "tiers": {"fast": arguments["tiers"]["fast"]}}


if __name__ == "__main__":
    main()
