"""What has begun or was admitted waits for a replica, and is not refused any more; nothing else waits so long."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from functools import partial

import pytest

from engine.api import Delta, FinishReason, GenerationRequest, Prompt, SamplingParams, Usage
from router.config.failover import FailoverConfig
from router.generation import attempts
from router.generation.attempts import run_attempts
from router.generation.collect import Collector
from router.generation.generate import Generation, generate
from router.inference_request import InferenceRequest
from router.openai.completions_writer import CompletionWriter
from router.ports.tier_backend import (
    BackendError,
    OnPlaced,
    OnUsage,
    ReplicaLostError,
    ReplicaOverloadedError,
    TierSnapshot,
    TierStartingError,
    TierUnavailableError,
)
from router.usage_meter import UsageMeter
from tests.router.backend import ReadyTiers

FULL, LOST = ReplicaOverloadedError("full", "a", 0.001), ReplicaLostError("lost", "a")
NONE, STARTING = TierUnavailableError("none"), TierStartingError("at zero")
Attempt = Sequence[str | BackendError]
"""What an attempt gets: the texts of its deltas, and an error that ends it; without one, the last text does."""


class Tier(ReadyTiers):
    """One tier, whose attempts at each prompt go as scripted, the last one again and again."""

    def __init__(self, script: Mapping[str, Sequence[Attempt]], ready: bool = True) -> None:
        self.script = script
        self.ready = ready
        self.attempts: defaultdict[str, int] = defaultdict(int)
        self.snapshots = 0

    def snapshot(self) -> Sequence[TierSnapshot]:
        self.snapshots += 1
        return [TierSnapshot("fast", frozenset("a" if self.ready else ""))]

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        prompt = str(request.prompt)
        scripted = self.script[prompt]
        attempt = scripted[min(self.attempts[prompt], len(scripted) - 1)]
        self.attempts[prompt] += 1
        await asyncio.sleep(0)
        for place, each in enumerate(attempt):
            if isinstance(each, BackendError):
                raise each
            last = place + 1 == len(attempt)
            usage = Usage(1, 1, 0) if last else None
            yield [Delta(request.request_id, (1,), each, FinishReason.STOP if last else None, usage)]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MIN_PAUSE_S", 0.001)


async def answer(
    script: Sequence[Attempt],
    wait_s: float = 5.0,
    admitted: bool = True,
    begun: Callable[[], bool] = lambda: False,
    ready: bool = True,
) -> str:
    request = GenerationRequest("r", "p", SamplingParams(seed=1))
    metered = partial(UsageMeter().attempt, 1), lambda kind, other_version: None
    config = FailoverConfig(wait_s=wait_s)
    found = run_attempts(
        Tier({"p": script}),
        "fast",
        request,
        config,
        list,
        *metered,
        admitted=admitted,
        had_replicas=ready,
        begun=begun,
    )
    return "".join([delta.text async for deltas in found for delta in deltas])


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([[NONE], [NONE], ["ok"]], id="no replica"),
        pytest.param([[FULL], [NONE], [FULL], ["ok"]], id="full, then gone"),
        pytest.param([[LOST], [NONE], [NONE], ["ok"]], id="lost"),
        pytest.param([[LOST], [STARTING], ["ok"]], id="lost, and the tier is at zero"),
        pytest.param([["o", LOST], [NONE], ["k"]], id="lost in the middle"),
    ],
)
async def test_an_admitted_request_waits_for_a_replica(script: Sequence[Attempt]) -> None:
    assert await answer(script) == "ok"


@pytest.mark.parametrize("script", [[[NONE]], [[FULL], [NONE]], [[FULL]]])
async def test_one_that_never_gets_a_replica_fails_after_its_wait_and_is_not_refused(script: Sequence[Attempt]) -> None:
    began = time.monotonic()
    with pytest.raises(TierUnavailableError):
        await answer(script, wait_s=0.1)
    assert 0.1 <= time.monotonic() - began < 5.0


async def test_an_answer_that_has_begun_fails_with_its_loss_if_all_others_stay_full() -> None:
    with pytest.raises(ReplicaLostError):
        await answer([["o", LOST], [FULL]], wait_s=0.1)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ([[NONE], ["ok"]], TierUnavailableError),
        ([[FULL], [NONE], ["ok"]], ReplicaOverloadedError),
        ([[FULL], ["ok"]], ReplicaOverloadedError),
        ([[LOST], [NONE], ["ok"]], TierUnavailableError),
    ],
)
async def test_a_request_that_was_not_admitted_is_refused_as_before(
    script: Sequence[Attempt], error: type[BackendError]
) -> None:
    with pytest.raises(error):
        await answer(script, admitted=False)


@pytest.mark.parametrize("error", [NONE, STARTING])
async def test_one_that_comes_to_a_tier_without_replicas_waits_for_a_first_one_only_as_long_as_the_backend_does(
    error: BackendError,
) -> None:
    with pytest.raises(type(error)):
        await answer([[error], ["ok"]], ready=False)
    assert await answer([[LOST], [error], ["ok"]], ready=False) == "ok", "it has had a replica meanwhile"


async def test_a_request_waits_if_the_answer_to_another_of_its_prompts_has_begun() -> None:
    assert await answer([[NONE], [FULL], ["ok"]], admitted=False, begun=lambda: True) == "ok"


async def texts(tier: Tier, prompts: list[Prompt], on_first_token: Callable[[], None] | None = None) -> list[str]:
    """Returns the texts of the answers to the prompts of one request. Without ``on_first_token`` it is not admitted."""
    asked = InferenceRequest("fast", prompts, SamplingParams(seed=1), "prompt", CompletionWriter)
    named = FailoverConfig(), UsageMeter(), lambda _: 1, "account", ""
    collector = Collector()
    work = Generation(tier, "fast", asked, "acme", *named, on_first_token=on_first_token)
    async for batch in generate(work):
        collector.push(batch)
    return [each.text for each in collector.answers()]


async def test_no_prompt_ends_the_answer_to_another_one_while_both_wait_for_the_same_replica() -> None:
    tier = Tier({"a": [["o", LOST], [NONE], [NONE], ["k"]], "b": [[LOST], [NONE], [NONE], [NONE], ["ok"]]})
    assert await texts(tier, ["a", "b"]) == ["ok", "ok"]


async def test_an_admitted_request_waits_if_its_tier_had_a_replica_which_costs_one_look_for_all_its_prompts() -> None:
    script: dict[str, Sequence[Attempt]] = {"a": [[NONE], ["ok"]], "b": [[NONE], ["ok"]]}
    tier = Tier(script)
    assert await texts(tier, ["a", "b"], on_first_token=lambda: None) == ["ok", "ok"]
    assert tier.snapshots == 1
    with pytest.raises(TierUnavailableError):
        await texts(Tier(script, ready=False), ["a", "b"], on_first_token=lambda: None)
