"""A tier with a warm pool, on a real Ray cluster: a loaded replica serves nothing until the target is raised."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator

import pytest
from ray import serve

from cluster.autoscaling.config import AutoscalingConfig
from cluster.config import MantaConfig
from tests.cluster import test_autoscaling
from tests.cluster.graph import eventually
from tests.cluster.test_autoscaling import APP, Scaled, scaled_config

pytestmark = pytest.mark.slow


def warm_config() -> MantaConfig:
    """A tier of one or two replicas that serve, and one that is warm."""
    config = scaled_config()
    assert config.autoscaling is not None
    scaling = config.autoscaling.model_dump() | {"tiers": {"fast": {"min": 1, "max": 2, "warm": 1}}}
    return config.model_copy(update={"autoscaling": AutoscalingConfig.model_validate(scaling)})


@pytest.fixture
def warm(serve_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scaled]:
    monkeypatch.setattr(test_autoscaling, "scaled_config", warm_config)
    yield Scaled(serve_port)
    serve.delete(APP)


async def test_a_warm_replica_serves_soon_after_a_raise_and_another_one_is_started_for_it(
    warm: Scaled, capsys: pytest.CaptureFixture[str]
) -> None:
    await asyncio.to_thread(eventually, lambda: warm.running == 2, "one replica serves and one is warm", 60.0)
    await asyncio.to_thread(eventually, lambda: warm.decision["numbers"].get("warm") == 1, "the decision knows it")
    await asyncio.sleep(1.5)  # until the router has looked which of them is warm
    await asyncio.gather(*(warm.stream(5) for _ in range(12)))
    assert len(warm.answered) == 1
    began = time.monotonic()
    warm.admin("PUT", "/fast/pin", {"replicas": 2, "expires_in_s": 60})
    while len(warm.answered) < 2:
        assert time.monotonic() - began < 15
        await asyncio.gather(*(warm.stream(5) for _ in range(6)))
    both_s = time.monotonic() - began
    text = warm.decision["text"]
    third_s = await warm.seconds_until(lambda: warm.running == 3, "another warm replica runs")
    with capsys.disabled():
        sys.stdout.write(f"\nboth answer {both_s:.1f} s after the pin, three run {third_s:.1f} s later\n{text}\n")
    await warm.client.aclose()
