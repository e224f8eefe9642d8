"""What the router counts for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from engine.api import FinishReason, RequestError
from router.ports.limit_store import LimitName
from router.ports.usage_metrics import AdmissionSample, UsageSample
from safety.api import Action, Stage, Verdict
from safety.policy import PolicyConfig
from tests.access.service import Service
from tests.router.backend import ScriptedBackend


class Counted:
    """Remembers what was counted."""

    def __init__(self) -> None:
        self.samples: list[UsageSample] = []
        self.warnings: list[tuple[str, str, LimitName]] = []
        self.refusals: list[tuple[str, str, LimitName]] = []
        self.of_guard: list[tuple[Stage, str, Action]] = []

    def count(self, sample: UsageSample) -> None:
        self.samples.append(sample)

    def near_limit(self, tenant: str, scope: str, limit: LimitName) -> None:
        self.warnings.append((tenant, scope, limit))

    def refused(self, tenant: str, scope: str, limit: LimitName) -> None:
        self.refusals.append((tenant, scope, limit))

    def failover(self, tier: str, kind: str) -> None:
        raise AssertionError("no replica is lost here")

    def speculation(self, tier: str, outcome: str) -> None:
        raise AssertionError("nothing is checked here")

    def admission(self, sample: AdmissionSample) -> None:
        assert sample.outcome == "admitted"

    def verdicts(self, stage: Stage, verdicts: Iterable[Verdict]) -> None:
        self.of_guard += [(stage, each.check, each.action) for each in verdicts]


async def test_a_request_is_counted_with_its_tokens_and_its_cost() -> None:
    counted = Counted()
    service = Service(metrics=counted)
    assert (await service.ask("sk-user")).status_code == 200

    cost = (2 * 1.0 + 1 * 0.25 + 5 * 4.0) / 1e6
    assert counted.samples == [UsageSample("acme", "fast", "finished", 3, 1, 5, cost)]
    assert counted.warnings == counted.refusals == []


async def test_what_the_service_is_not_to_blame_for_is_no_failure_of_it() -> None:
    counted = Counted()
    backend = ScriptedBackend(fault=RequestError("too long", "prompt"))
    await Service(backend=backend, metrics=counted).ask("sk-user")
    await Service(backend=ScriptedBackend(outcome=FinishReason.ERROR), metrics=counted).ask("sk-user")

    assert [sample.outcome for sample in counted.samples] == ["refused", "failed"]


@pytest.mark.parametrize(("stream", "of_answer"), [(True, Stage.DURING), (False, Stage.AFTER)])
async def test_verdicts_are_counted_by_the_stage_at_which_the_guard_gave_them(stream: bool, of_answer: Stage) -> None:
    counted = Counted()
    policy = {"pii": {"requests": "redact"}, "phrases": {"block": ["wörld"]}}  # which each scripted answer has
    service = Service(metrics=counted, policy=PolicyConfig.model_validate(policy))
    await service.ask("sk-user", prompt="I am jane.doe@example.com", stream=stream)

    assert counted.of_guard == [(Stage.BEFORE, "pii", Action.REDACT), (of_answer, "phrases", Action.BLOCK)]


async def test_a_limit_that_is_nearly_used_up_is_counted_and_so_is_a_refusal() -> None:
    counted = Counted()
    service = Service(metrics=counted)
    key = (await service.create(limits={"requests_per_minute": 5}))["key"]
    statuses = [(await service.ask(key)).status_code for _ in range(6)]

    assert statuses == [200] * 5 + [429]
    assert counted.warnings == [("acme", "key", LimitName.REQUESTS_PER_MINUTE)] * 2  # at 80 and 100 %
    assert counted.refusals == [("acme", "key", LimitName.REQUESTS_PER_MINUTE)]
    assert len(counted.samples) == 5
