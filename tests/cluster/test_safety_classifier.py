"""The routers' classifier: slow, dead and confused replicas, the breaker, and the deployment on a real Ray cluster."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ray import serve
from ray.serve import context as serve_context

from cluster.config import MantaConfig
from cluster.model_service.model_health import ModelStuckError
from cluster.safety.classifier_client import ClassifierClient
from cluster.safety.classifier_replica import ClassifierReplica
from cluster.safety.classifier_reply import ClassifierReply
from cluster.safety.config import ClassifierConfig
from cluster.safety.deployment import ClassifierLink, bind_classifier, classifier_client
from safety.api import ClassifierBusyError, ClassifierUnavailableError, Scores
from safety.classification import BoundedClassifier
from safety.classifier.batching_classifier import BatchingClassifier
from safety.classifier.window_classifier import WindowClassifier
from tests.cluster.graph import Graph, dev_config, eventually
from tests.safety.artefacts import write_classifier

GOOD = Scores({"violence": 0.5}, 0.25, flagged=False)
REPLY = ClassifierReply("v2", (GOOD,))


class VirtualClock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


class ScriptedReplica:
    """Gives the replies of ``script`` in turn: a reply, an error to raise, or seconds to sleep before a good one."""

    def __init__(self, *script: object) -> None:
        self.script = list(script)
        self.calls = 0

    async def __call__(self, texts: Sequence[str], tenant: str = "", urgent: bool = False) -> object:
        self.calls += 1
        step = self.script.pop(0) if self.script else REPLY
        if isinstance(step, float):
            await asyncio.sleep(step)
            return REPLY
        if isinstance(step, BaseException):
            raise step
        return step


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def config(**changes: Any) -> ClassifierConfig:
    values = {"model": "unused", "deadline_ms": 50, "deadline_ms_per_1000_characters": 0, "max_faults": 2, **changes}
    return ClassifierConfig.model_validate(values)


async def test_a_good_reply_is_passed_on_with_its_version(clock: VirtualClock) -> None:
    client = ClassifierClient(ScriptedReplica(), config(), "v1", clock)
    assert client.version == "v1"
    assert await client.classify(["a"]) == [GOOD]
    assert client.version == "v2"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (10.0, "did not answer within 0.05 s"),
        (ClassifierUnavailableError("the classifier was lost: ActorDiedError"), "ActorDiedError"),
        (ClassifierReply("v2", failure="the classifier failed: RuntimeError"), "RuntimeError"),
        (None, "nonsense"),
        ([GOOD], "nonsense"),
        (ClassifierReply("v2"), "nonsense"),
        (ClassifierReply("v2", (Scores({"violence": float("nan")}, 0.0, flagged=False),)), "nonsense"),
        (ClassifierReply("v2", (Scores({"violence": 0.1}, 7.0, flagged=False),)), "nonsense"),
    ],
    ids=["slow", "dead", "failed", "nothing", "no reply", "no scores", "NaN", "above 1"],
)
async def test_each_failure_is_unavailable_and_opens_the_breaker(
    clock: VirtualClock, step: object, message: str
) -> None:
    replica = ScriptedReplica(step, step)
    client = ClassifierClient(replica, config(), "v1", clock)
    for _ in range(2):
        with pytest.raises(ClassifierUnavailableError, match=message):
            await client.classify(["a"])
    assert client.state.value == "open"
    with pytest.raises(ClassifierUnavailableError, match="not asked for a while"):
        await client.classify(["a"])
    assert replica.calls == 2
    clock.seconds += 1
    assert await client.classify(["a"]) == [GOOD]
    assert client.state.value == "closed"


async def test_a_tenant_with_too_much_text_is_no_fault_of_the_classifier(clock: VirtualClock) -> None:
    busy = ClassifierReply("v2", failure="9 windows of the tenant wait already", busy=True)
    client = ClassifierClient(ScriptedReplica(*[busy] * 4), config(), "v1", clock)
    for _ in range(4):
        with pytest.raises(ClassifierBusyError):
            await client.classify(["a"], "acme")
    assert client.state.value == "closed"


async def test_a_caller_that_leaves_is_no_fault(clock: VirtualClock) -> None:
    client = ClassifierClient(ScriptedReplica(*[10.0] * 4), config(deadline_ms=60_000), "v1", clock)
    for _ in range(4):
        call = asyncio.create_task(client.classify(["a"]))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert client.state.value == "closed"


@pytest.mark.parametrize(("share", "state"), [(1.0, "open"), (0.2, "closed")])
async def test_a_caller_whose_own_deadline_ends_first_says_that_the_classifier_hangs(
    clock: VirtualClock, share: float, state: str
) -> None:
    """The deadlines of a policy and of the deployment are equal by default, and the policy's begins first."""
    client = ClassifierClient(ScriptedReplica(*[10.0] * 2), config(deadline_ms=500), "v1", clock)
    bounded = BoundedClassifier(client, lambda characters: 0.5 * share)
    for _ in range(2):
        with pytest.raises(ClassifierUnavailableError):
            await bounded.classify(["a"])
    assert client.state.value == state


@pytest.mark.parametrize(("first", "state"), [(0.1, "closed"), (10.0, "open")])
async def test_a_classifier_that_answers_some_calls_of_a_burst_in_time_is_busy_and_not_at_fault(
    clock: VirtualClock, first: float, state: str
) -> None:
    """The others end in the same moment, with no answer in between: a burst of one tenant must not refuse all."""
    client = ClassifierClient(ScriptedReplica(first, *[10.0] * 5), config(deadline_ms=500), "v1", clock)
    bounded = BoundedClassifier(client, lambda characters: 0.5)
    calls = [bounded.classify(["a"]) for _ in range(6)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(each, ClassifierUnavailableError) for each in found) == (5 if state == "closed" else 6)
    assert client.state.value == state


class ContextHandle:
    """Stands for a Serve handle. It notes the internal id that Serve would give each call."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.classify = self

    def options(self, **_: str) -> ContextHandle:
        return self

    def remote(self, texts: Sequence[str], tenant: str) -> asyncio.Future[ClassifierReply]:
        self.ids.append(serve_context._get_serve_request_context()._internal_request_id)
        answer: asyncio.Future[ClassifierReply] = asyncio.get_running_loop().create_future()
        answer.set_result(REPLY)
        return answer


async def test_calls_within_one_http_request_have_no_id_in_common() -> None:
    handle = ContextHandle()
    client = classifier_client(ClassifierLink(config(), "v1", handle))
    serve_context._serve_request_context.set(serve_context._RequestContext(_internal_request_id="same"))  # type: ignore[arg-type]

    await asyncio.gather(client.classify(["a"]), client.classify(["b"]))

    assert handle.ids == ["", ""]  # Serve then makes an id for each


def test_a_long_text_has_longer() -> None:
    settings = config(deadline_ms=1000, deadline_ms_per_1000_characters=300)
    assert [settings.deadline_s(characters) for characters in (0, 500, 10_000)] == [1.0, 1.15, 4.0]


class Endless:
    """A classifier whose batch does not end, or which breaks."""

    version = "v1"

    def __init__(self, busy_s: float) -> None:
        self._busy_s = busy_s

    def busy_s(self) -> float:
        return self._busy_s

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Scores]:
        raise ClassifierUnavailableError("the classifier failed: RuntimeError")


async def test_a_replica_answers_failures_and_reports_a_stuck_batch() -> None:
    replica = ClassifierReplica(config(), lambda _: Endless(1.0))
    assert await replica.classify(["a"]) == ClassifierReply("v1", failure="the classifier failed: RuntimeError")
    replica.check_health()
    with pytest.raises(ModelStuckError, match="61 s"):
        ClassifierReplica(config(), lambda _: Endless(61.0)).check_health()


def test_the_config_has_the_classifier_under_safety() -> None:
    arguments = dev_config()
    assert MantaConfig.model_validate(arguments | {"safety": {}}).safety.classifier is None
    settings = MantaConfig.model_validate(arguments | {"safety": {"classifier": {"model": "somewhere"}}})
    assert settings.safety.classifier == ClassifierConfig(model=Path("somewhere"))
    with pytest.raises(ValidationError, match=r"safety\.classifier\.modle"):
        MantaConfig.model_validate(arguments | {"safety": {"classifier": {"model": "somewhere", "modle": 1}}})


def test_a_missing_model_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"safety\.classifier\.model: .*config\.json"):
        bind_classifier(config(model=tmp_path))


def test_a_router_imports_no_runtime() -> None:
    code = "import sys, cluster.ingress, cluster.app; print([m for m in ('onnxruntime', 'torch') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def link(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> ClassifierLink:
    """The deployment on the cluster of the session, as an application of its own."""
    directory = write_classifier(tmp_path_factory.mktemp("classifier"))
    bound = bind_classifier(config(model=directory, num_cpus=0, deadline_ms=20_000, health_check_period_s=0.5))
    serve.run(bound.handle, name="classifier", route_prefix=None)
    return bound._replace(handle=serve.get_deployment_handle("SafetyClassifier", "classifier"))


@pytest.mark.slow
def test_the_deployment_answers_as_in_process(graph: Graph, link: ClassifierLink) -> None:
    texts = ["hi", "", "the bomb " * 100]

    async def remote() -> Sequence[Scores]:
        return await classifier_client(link).classify(texts)

    local = asyncio.run(BatchingClassifier(WindowClassifier(link.config.model)).classify(texts))
    assert graph.run(remote()) == local


@pytest.mark.slow
def test_a_killed_replica_is_unavailable_and_then_replaced(graph: Graph, link: ClassifierLink) -> None:
    async def pid() -> int:
        return int(await link.handle.pid.remote())

    async def killed() -> None:
        call = asyncio.create_task(classifier_client(link).classify(["the bomb " * 40_000]))
        await asyncio.sleep(0.3)
        os.kill(await pid(), signal.SIGKILL)
        with pytest.raises(ClassifierUnavailableError, match="lost"):
            await call

    async def answers() -> bool:
        try:
            return len(await classifier_client(link).classify(["hi"])) == 1
        except ClassifierUnavailableError:
            return False

    before = graph.run(pid())
    graph.run(killed())
    eventually(lambda: graph.run(answers()), "a new replica answers")
    assert graph.run(pid()) != before
