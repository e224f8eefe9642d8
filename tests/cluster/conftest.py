"""A Ray cluster of the tests' own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

import tests.ray_settings  # noqa: F401 - before Ray is imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that share the Ray cluster, which run apart from all others."""
    for item in items:
        if "serve_port" in getattr(item, "fixturenames", ()):
            item.add_marker("ray_cluster")


@pytest.fixture(scope="session")
def handle_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The event loop that Serve handles belong to for as long as they live; tests come and go."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="session")
def serve_port(handle_loop: asyncio.AbstractEventLoop) -> Iterator[int]:
    """The HTTP port of Ray Serve on a Ray cluster without applications. It takes some ten seconds."""
    # Serve closes its handles when it is shut down, on their loop, which must run until then.
    del handle_loop
    import ray
    from ray import serve
    from ray.serve._private import client

    from tests.cluster.graph import free_port
    from tests.cluster.workers import start_ray_with_forks

    start_ray_with_forks()
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "CLIENT_POLLING_INTERVAL_S", 0.1)  # of the state of an application; 1 s by default
        yield port
    serve.shutdown()
    ray.shutdown()


@pytest.fixture(scope="session")
def graph(serve_port: int, handle_loop: asyncio.AbstractEventLoop) -> Iterator[object]:
    """The dev.yaml graph, started once: it takes half a minute."""
    from tests.cluster.graph import Graph, dev_config

    running = Graph(serve_port, dev_config(), handle_loop)
    yield running
    running.stop()
