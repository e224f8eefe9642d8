"""``manta doctor`` looks at every node of a running Ray cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from cluster.doctor.cluster_facts import cluster_facts

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


def test_a_wrong_address_is_said_and_shows_no_token(serve_port: int) -> None:
    # Ray tries for minutes; in these seconds it has been imported, and has tried.
    nodes, fault = cluster_facts("127.0.0.1:9", [], [], timeout_s=10)
    assert nodes == []
    assert "127.0.0.1:9" in fault
