"""``manta doctor`` looks at every node of a running Ray cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
from pydantic import SecretStr

from cluster.config import StateConfig
from cluster.doctor.cluster_facts import cluster_facts
from cluster.local.redis_server import RedisServer
from tests.cluster.graph import Graph
from tests.state.conftest import free_port, wait_until_ready

pytestmark = pytest.mark.slow


def test_each_node_is_looked_at_by_a_task_on_it(serve_port: int, tmp_path: Path) -> None:
    address = ray.get_runtime_context().gcs_address
    nodes, fault = cluster_facts(address, [str(tmp_path / "gone")], [str(tmp_path)])
    assert fault == ""
    (node,) = nodes
    assert node.ray == ray.__version__
    assert node.variables["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert node.variables["RAY_AUTH_TOKEN"] == "set"
    assert "does not exist" in node.models[str(tmp_path / "gone")]
    assert node.free_bytes[str(tmp_path)] > 0
    assert abs(node.clock_offset_s) <= node.clock_error_s + 0.1
    assert node.clock_error_s < 5


def test_each_node_says_whether_redis_and_the_service_answer_there(
    serve_port: int, graph: Graph, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    address = ray.get_runtime_context().gcs_address
    redis = RedisServer(tmp_path_factory.mktemp("redis"), free_port())
    redis.start()
    wait_until_ready(redis)
    ((node,), _) = cluster_facts(address, [], [], StateConfig(url_file=redis.url_file), serve_port)
    assert node.redis_fault == ""
    assert (node.listening, node.healthy) == (True, True)
    redis.stop()
    ((node,), _) = cluster_facts(address, [], [], StateConfig(url=SecretStr(redis.url)), free_port())
    assert str(node.redis_fault).startswith("cannot be reached")
    assert (node.listening, node.healthy) == (False, False)
    ((node,), _) = cluster_facts(address, [], [], StateConfig(url_file=tmp_path / "none"))
    assert "none" in str(node.redis_fault)
    assert node.listening is None


def test_a_wrong_address_is_said_and_shows_no_token(serve_port: int) -> None:
    # Ray tries for minutes; in these seconds it has been imported, and has tried.
    nodes, fault = cluster_facts("127.0.0.1:9", [], [], timeout_s=10)
    assert nodes == []
    assert "127.0.0.1:9" in fault
