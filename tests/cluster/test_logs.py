"""The logs of a running service, as files on a node: JSON lines that belong to requests, without a text of any."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from ray import serve

from cluster.app import build_with
from cluster.config import MantaConfig
from tests.cluster.failing_engine import FailingFactory
from tests.cluster.graph import eventually

pytestmark = pytest.mark.slow

KEY = "sk-logs"
MARKER = "zanzibarmarker"
TRACE = "0af7651916cd43dd8448eb211c80319c"

ARGUMENTS: dict[str, Any] = {
    "router": {"keys": [{"key": KEY, "tenant": "dev", "team": "core"}], "auto": None},
    "ingress": {"num_cpus": 0, "drain_timeout_s": 5},
    "telemetry": {
        # No receiver listens there. Requests are traced without one.
        "endpoint": "http://127.0.0.1:9/v1/traces",
        "sample_ratio": 1.0,
        "logs": {"format": "json"},
    },
    "tiers": [{"name": "brittle", "num_cpus": 0, "drain_timeout_s": 5, "engine": {"model": "models/none"}}],
}


class Service:
    """The application below a prefix, and the log files of its actors."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/logs"

    def ask(self, text: str, request_id: str) -> httpx.Response:
        headers = {
            "authorization": f"Bearer {KEY}",
            "x-request-id": request_id,
            "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
        }
        body = {"model": "brittle", "messages": [{"role": "user", "content": text}], "max_tokens": 4}
        return httpx.post(f"{self._url}/v1/chat/completions", json=body, headers=headers, timeout=60)

    def ready(self) -> bool:
        return httpx.get(f"{self._url}/healthz", timeout=5).status_code == 200

    def lines(self, deployment: str) -> list[dict[str, Any]]:
        """Parses each line of the logs of a deployment's replicas."""
        return [json.loads(line) for path in logs(deployment) for line in path.read_text().splitlines()]


def logs(name: str) -> list[Path]:
    """The files below Serve's directory of logs that belong to a deployment of this application; "": all of them."""
    node: Any = ray._private.worker._global_node
    directory = Path(node.get_logs_dir_path()) / "serve"
    return [path for path in directory.rglob("*") if path.is_file() and (not name or f"_logs_{name}_" in path.name)]


@pytest.fixture(scope="module")
def service(serve_port: int) -> Iterator[Service]:
    serve.run(build_with(MantaConfig.model_validate(ARGUMENTS), FailingFactory()), name="logs", route_prefix="/logs")
    made = Service(serve_port)
    eventually(made.ready, "the tier is ready")
    yield made
    serve.delete("logs")


def test_lines_of_router_and_replica_belong_to_the_request_and_its_trace(service: Service) -> None:
    assert service.ask("please fail", "failing-1").status_code == 500
    eventually(
        lambda: any(line["logger"] == "router.app" for line in service.lines("Router")), "the router has logged", 20
    )
    (ours,) = [line for line in service.lines("Router") if line["logger"] == "router.app"]
    assert ours["request_id"] == "failing-1"
    assert ours["trace_id"] == TRACE
    assert ours["deployment"] == "Router"
    assert ours["application"] == "logs"
    assert ours["level"] == "ERROR"
    behind = [line for line in service.lines("brittle") if line["logger"] in ("engine.failing", "engine.log_failure")]
    assert len(behind) == 2
    assert {line["tier"] for line in behind} == {"brittle"}
    assert {line["request_id"] for line in behind} != {"failing-1"}  # the engine's own id
    assert [line["trace_id"] for line in behind] == [TRACE, TRACE]
    assert behind[0]["span_id"]


def test_no_text_of_a_request_that_failed_is_in_any_log(service: Service) -> None:
    for number in range(2):
        service.ask(f"fail {MARKER}", f"failing-{number}")
    service.ask(f"answer {MARKER}", "answered")

    def failures() -> set[str]:
        return {line.get("exception_type", "") + line["logger"] for line in service.lines("brittle")}

    expected = {"ValueErrorsome.library", "ValueErrorasyncio", "ValueErrorcluster.telemetry.logs"}
    eventually(lambda: expected <= failures(), f"the library, the task and the thread have failed: {failures()}", 20)
    files = logs("")
    assert files
    for path in files:
        assert MARKER not in path.read_text(errors="replace"), path


def test_each_line_is_written_once_and_is_json_with_the_same_fields(service: Service) -> None:
    service.ask("please fail", "only-once")
    lines = [*service.lines("Router"), *service.lines("brittle")]
    for line in lines:
        assert {"time", "level", "logger", "message", "deployment", "replica"} <= set(line)
    failed = [line for line in lines if "only-once" in line["message"]]
    assert len(failed) == 1
