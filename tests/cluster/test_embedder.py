"""The routers' embedder: slow, dead and confused replicas, the breaker, and the deployment on a real Ray cluster."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import openai
import pytest
from pydantic import ValidationError
from ray import serve

from cluster.config import MantaConfig
from cluster.embedder.deployment import EmbedderLink, bind_embedder, embedder_client
from cluster.embedder.embedder_client import EmbedderClient, EmbedderDescription
from cluster.embedder.embedder_replica import EmbedderReplica, load_embedder
from cluster.embedder.embedder_reply import EmbedderReply
from cluster.model_service.model_health import ModelStuckError
from router.ports.embedder import Embedded, EmbedderUnavailableError, Embeddings, TextTooLongError
from tests.cluster.graph import Graph, dev_config, eventually
from tests.cluster.local_fake import LocalFake
from tests.embedder.contract import check_embedder
from tests.embedder.models import PACKAGED, embedder_config, packaged_directory, write_model
from tests.state.clock import VirtualClock

DESCRIPTION = EmbedderDescription("m@1", 2, 32)
GOOD = Embeddings(np.array([[0.6, 0.8]], np.float32), (3,))
REPLY = EmbedderReply("m@2", GOOD)
RESULT = Embedded(*GOOD, "m@2")


class ScriptedReplica:
    """Gives the replies of ``script`` in turn: a reply, an error to raise, or seconds to sleep before a good one."""

    def __init__(self, *script: object) -> None:
        self.script = list(script)
        self.calls = 0
        self.tenants: list[str] = []

    async def __call__(self, texts: Sequence[str], tenant: str) -> object:
        self.calls += 1
        self.tenants.append(tenant)
        step = self.script.pop(0) if self.script else REPLY
        if isinstance(step, float):
            await asyncio.sleep(step)
            return REPLY
        if isinstance(step, BaseException):
            raise step
        return step


def client(replica: ScriptedReplica, clock: VirtualClock, **changes: Any) -> EmbedderClient:
    return EmbedderClient(replica, embedder_config("unused", **changes), DESCRIPTION, clock)


def of(vectors: Any, tokens: tuple[int, ...] = (3,)) -> EmbedderReply:
    return EmbedderReply("m@2", Embeddings(np.array(vectors), tokens))


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


async def test_a_good_reply_is_passed_on_with_its_model(clock: VirtualClock) -> None:
    embedder = client(ScriptedReplica(), clock)
    assert (embedder.model, embedder.dimensions, embedder.max_tokens) == ("m@1", 2, 32)
    assert await embedder.embed(["a"]) == RESULT
    assert embedder.model == "m@2"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (10.0, "did not answer within 0.05 s"),
        (EmbedderUnavailableError("the embedder was lost: ActorDiedError"), "ActorDiedError"),
        (EmbedderReply("m@2", failure="the embedder failed: RuntimeError"), "RuntimeError"),
        (None, "nonsense"),
        (GOOD, "nonsense"),
        (EmbedderReply("m@2"), "no embeddings"),
        (of(np.zeros((2, 2), np.float32)), r"\[2, 2\] instead of \[1, 2\]"),
        (of(np.ones((1, 3), np.float32)), r"\[1, 3\]"),
        (of([[0.6, 0.8]]), "float64"),
        (of(np.array([[0.6, np.nan]], np.float32)), "length 1"),
        (of(np.zeros((1, 2), np.float32)), "length 1"),
        (of(GOOD.vectors, ()), "nonsense"),
    ],
    ids=["slow", "dead", "failed", "nothing", "no-reply", "empty", "two", "wide", "double", "NaN", "zero", "no-tokens"],
)
async def test_each_failure_is_unavailable_and_opens_the_breaker(
    clock: VirtualClock, step: object, message: str
) -> None:
    replica = ScriptedReplica(step, step)
    embedder = client(replica, clock)
    for _ in range(2):
        with pytest.raises(EmbedderUnavailableError, match=message):
            await embedder.embed(["a"])
    assert embedder.state.value == "open"
    with pytest.raises(EmbedderUnavailableError, match="not asked for a while"):
        await embedder.embed(["a"])
    assert replica.calls == 2
    clock.advance(1)
    assert await embedder.embed(["a"]) == RESULT
    assert embedder.state.value == "closed"


async def test_a_text_that_is_too_long_is_no_fault_of_the_embedder(clock: VirtualClock) -> None:
    embedder = client(ScriptedReplica(*[EmbedderReply("m@2", too_long=(1, 40, 32))] * 3), clock)
    for _ in range(3):
        with pytest.raises(TextTooLongError) as error:
            await embedder.embed(["a", "b"])
    assert (error.value.index, error.value.tokens, error.value.max_tokens) == (1, 40, 32)
    assert embedder.state.value == "closed"


async def test_the_replica_is_told_whose_texts_they_are(clock: VirtualClock) -> None:
    replica = ScriptedReplica()
    await client(replica, clock).embed(["a"], "acme")
    assert replica.tenants == ["acme"]


async def test_a_caller_that_leaves_is_no_fault(clock: VirtualClock) -> None:
    embedder = client(ScriptedReplica(*[10.0] * 4), clock, deadline_ms=60_000)
    for _ in range(4):
        call = asyncio.create_task(embedder.embed(["a"]))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert embedder.state.value == "closed"


async def test_a_replica_answers_failures_and_reports_a_stuck_batch() -> None:
    fake = LocalFake()
    replica = EmbedderReplica(embedder_config("unused"), lambda _: fake)
    embedder = EmbedderClient(replica.embed, embedder_config("unused"), EmbedderDescription("fake@1", 64, 256))
    await check_embedder(embedder)
    replica.check_health()
    fake.available, fake.busy = False, 61.0
    with pytest.raises(EmbedderUnavailableError, match="switched off"):
        await embedder.embed(["a"])
    with pytest.raises(ModelStuckError, match="61 s"):
        replica.check_health()


def test_the_config_has_the_embedder_at_its_top() -> None:
    arguments = dev_config()
    assert MantaConfig.model_validate({**arguments, "embedder": None}).embedder is None
    settings = MantaConfig.model_validate(arguments).embedder
    assert settings is not None
    assert (settings.model, settings.optional) == (PACKAGED, True)
    with pytest.raises(ValidationError, match=r"embedder\.modle"):
        MantaConfig.model_validate({**arguments, "embedder": {"model": "somewhere", "modle": 1}})


def test_embeddings_have_a_price_if_tiers_have() -> None:
    arguments = dev_config()
    del arguments["router"]["prices"]["tiers"]["embeddings"]
    with pytest.raises(ValidationError, match="embeddings have no price"):
        MantaConfig.model_validate(arguments)
    MantaConfig.model_validate({**arguments, "embedder": None})


def test_neither_router_nor_embedder_imports_more_than_it_needs(tmp_path: Any) -> None:
    """The router has no runtime, and the embedder no torch, which takes three times its memory."""
    model = str(write_model(tmp_path))
    code = f"""
import sys, cluster.ingress, cluster.app
print([m for m in ("onnxruntime", "torch") if m in sys.modules])
from cluster.embedder.config import EmbedderConfig
from cluster.embedder.embedder_replica import EmbedderReplica
EmbedderReplica(EmbedderConfig(model={model!r}))
print([m for m in ("onnxruntime", "torch", "transformers") if m in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.split("\n")[:2] == ["[]", "['onnxruntime']"]


@pytest.fixture(scope="module")
def link(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> EmbedderLink:
    """The deployment on the cluster of the session, with a small model, as an application of its own."""
    directory = write_model(tmp_path_factory.mktemp("embedder"))
    bound = bind_embedder(embedder_config(directory, deadline_ms=20_000, health_check_period_s=0.5))
    assert bound is not None
    serve.run(bound.handle, name="embedder", route_prefix=None)
    return bound._replace(handle=serve.get_deployment_handle("Embedder", "embedder"))


@pytest.mark.slow
def test_the_deployment_keeps_the_contract_and_answers_as_in_process(graph: Graph, link: EmbedderLink) -> None:
    async def remote() -> Embedded:
        embedder = embedder_client(link)
        await check_embedder(embedder)
        return await embedder.embed(["the rain is lovely", "bomb"])

    there = graph.run(remote())
    here = asyncio.run(load_embedder(link.config).embed(["the rain is lovely", "bomb"]))
    np.testing.assert_allclose(there.vectors, here.vectors, atol=1e-6)
    assert there.tokens == here.tokens


@pytest.mark.slow
def test_a_killed_replica_is_unavailable_and_then_replaced(graph: Graph, link: EmbedderLink) -> None:
    async def pid() -> int:
        return int(await link.handle.pid.remote())

    async def killed() -> None:
        call = asyncio.create_task(embedder_client(link).embed(["the rain is lovely"] * 100_000))
        await asyncio.sleep(0.3)
        os.kill(await pid(), signal.SIGKILL)
        with pytest.raises(EmbedderUnavailableError, match="lost"):
            await call

    async def answers() -> bool:
        try:
            return len((await embedder_client(link).embed(["hi"])).tokens) == 1
        except EmbedderUnavailableError:
            return False

    before = graph.run(pid())
    graph.run(killed())
    eventually(lambda: graph.run(answers()), "a new replica answers")
    assert graph.run(pid()) != before


@pytest.mark.slow
def test_the_service_embeds_with_the_packaged_model(graph: Graph) -> None:
    packaged_directory()
    with graph.client() as api:
        texts = ["How do I turn it on?", "How can I switch it on?", "Bananas are yellow."]
        answer = api.embeddings.create(model="all-MiniLM-L6-v2", input=texts)
        with pytest.raises(openai.BadRequestError, match="maximum input length is 256 tokens"):
            api.embeddings.create(model="all-MiniLM-L6-v2", input="rain " * 255)
        assert "all-MiniLM-L6-v2" in {model.id for model in api.models.list()}

    first, same, other = (np.array(each.embedding) for each in answer.data)
    assert first @ same > 0.8 > 0.3 > first @ other
    assert answer.model.startswith("all-MiniLM-L6-v2@")
    assert answer.usage.total_tokens == 9 + 9 + 6  # word pieces, [CLS] and [SEP] included
