"""A tier that is scaled by its load, on a real Ray cluster: more replicas under load, fewer after it, no stream cut,
and a controller that is killed goes on.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator

import pytest
import ray
from ray import serve

from tests.cluster.queueing_engine import EXPECTED
from tests.cluster.scaled import APP, Scaled, scaled_config

pytestmark = pytest.mark.slow


LONG = 700  # tokens of a stream that outlasts the load by some seconds


@pytest.fixture
def scaled(serve_port: int) -> Iterator[Scaled]:
    running = Scaled(serve_port, scaled_config())
    yield running
    serve.delete(APP)


async def test_replicas_follow_the_load_and_no_stream_is_cut(
    scaled: Scaled, capsys: pytest.CaptureFixture[str]
) -> None:
    times = {}
    began = time.time()
    async with scaled.load() as answers:
        times["target raised"] = await scaled.seconds_until(
            lambda: scaled.decision["target"] == 2, "the target is raised"
        )
        raised = scaled.decision
        times["of which until the decision"] = raised["at"] - began
        times["then second replica"] = await scaled.seconds_until(lambda: scaled.running == 2, "two replicas run")
        times["then both answered"] = await scaled.seconds_until(
            lambda: len(scaled.answered) == 2, "the second replica answers"
        )
        long = [asyncio.create_task(scaled.stream(LONG)) for _ in range(4)]
        await asyncio.sleep(1)
    times["target lowered"] = await scaled.seconds_until(
        lambda: scaled.decision["target"] == 1, "the target is lowered"
    )
    assert [each for each in long if not each.done()], times  # one of them runs on the replica that goes
    lowered = scaled.decision
    times["then one replica"] = await scaled.seconds_until(lambda: scaled.running == 1, "one replica runs")
    found = await asyncio.gather(*answers, *long)
    scaled.admin("PUT", "/fast/pin", {"replicas": 2, "expires_in_s": 60})
    times["pinned, target raised"] = await scaled.seconds_until(
        lambda: scaled.decision["target"] == 2 and scaled.decision["reason"] == "pinned", "the pin counts"
    )
    killed = time.time()
    ray.kill(ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve"), no_restart=False)
    times["controller killed, decides again"] = await scaled.seconds_until(
        lambda: scaled.decision["at"] > killed + 1 and scaled.decision["target"] == 2, "the controller is back"
    )
    times["then second replica again"] = await scaled.seconds_until(lambda: scaled.running == 2, "two replicas run")
    with capsys.disabled():
        lines = [*(f"{name}: {seconds:.1f} s" for name, seconds in times.items()), raised["text"], lowered["text"]]
        sys.stdout.write("\n".join(["", *lines, f"{len(found)} streams, none cut", ""]))
    assert set(found) == {(EXPECTED, "length"), (LONG, "length")}
    assert lowered["reason"] in ("low_load", "minimum")
    assert times["then second replica"] + times["then both answered"] < 15
    await scaled.client.aclose()
