"""What a client gets of an answer that fails after it has begun."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Any

import pytest

from engine.api import Delta, FinishReason, GenerationRequest
from router.answer_events import AnswerEvent, Ended, Interrupted, Opened
from router.config.failover import FailoverConfig
from router.config.router import RouterConfig
from router.config.tenants import TenantConfig
from router.errors import RefusalError, refusal_of
from router.generation.finish_on_failure import finish_on_failure
from router.ports.tier_backend import OnPlaced, OnUsage, ReplicaLostError, ReplicaOverloadedError
from router.usage_meter import UsageMeter
from tests.router.backend import WORDS, ScriptedBackend
from tests.router.served import CONFIG, OTHER_KEY, Served

CHAT: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
LOST = ReplicaLostError("The replica was lost.", "fast")
ERROR = {
    "message": "The replica was lost.",
    "type": "server_error",
    "param": None,
    "code": "replica_lost",
}


@pytest.fixture
def failing(served: Served) -> Served:
    """A router whose replica is lost after three words."""
    served.backend.fault, served.backend.fault_at = LOST, 3
    return served


def test_a_whole_answer_is_an_error_unless_the_part_was_asked_for(failing: Served) -> None:
    answer = failing.http.post("/v1/chat/completions", json=CHAT)
    assert (answer.status_code, answer.json()) == (503, {"error": ERROR})
    assert failing.http.post("/v1/chat/completions", json=CHAT | {"on_failure": "error"}).status_code == 503


def test_the_part_that_was_generated_is_marked_and_counted(failing: Served) -> None:
    answer = failing.http.post("/v1/chat/completions", json=CHAT | {"on_failure": "partial"})
    assert answer.status_code == 200
    (choice,) = answer.json()["choices"]
    assert choice["message"]["content"] == "".join(WORDS[:3])
    assert (choice["finish_reason"], choice["error"]) == ("length", ERROR)
    assert answer.json()["usage"]["completion_tokens"] == 3
    parsed = failing.openai.chat.completions.create(**CHAT, extra_body={"on_failure": "partial"})
    assert parsed.choices[0].finish_reason == "length"


def test_text_completions_have_the_same_mark(failing: Served) -> None:
    body = {"model": "fast", "prompt": "Hi", "on_failure": "partial"}
    (choice,) = failing.http.post("/v1/completions", json=body).json()["choices"]
    assert choice["text"] == "<Hi>" + "".join(WORDS[:2])
    assert choice["error"] == ERROR


def test_choices_that_have_ended_are_whole(failing: Served) -> None:
    body = CHAT | {"n": 3, "on_failure": "partial"}
    choices = failing.http.post("/v1/chat/completions", json=body).json()["choices"]
    assert [choice["finish_reason"] for choice in choices] == ["length", "stop", "stop"]
    assert ["error" in choice for choice in choices] == [True, False, False]


def test_an_answer_that_has_not_begun_is_an_error(served: Served) -> None:
    served.backend.fault, served.backend.fault_at = LOST, 0
    assert served.http.post("/v1/chat/completions", json=CHAT | {"on_failure": "partial"}).status_code == 503


def test_an_error_of_the_request_stays_one(served: Served) -> None:
    served.backend.outcome = FinishReason.REFUSED
    answer = served.http.post("/v1/chat/completions", json=CHAT | {"on_failure": "partial"})
    assert answer.status_code == 400


@pytest.mark.parametrize("policy", ["error", "partial"])
def test_a_stream_ends_with_the_error_and_the_usage_until_then(failing: Served, policy: str) -> None:
    text = failing.http.post("/v1/chat/completions", json=CHAT | {"stream": True, "on_failure": policy}).text
    *chunks, last = [json.loads(frame.removeprefix("data: ")) for frame in text.split("\n\n") if frame]
    said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert said == "".join(WORDS[:3])
    assert last["error"] == ERROR
    assert last["usage"]["completion_tokens"] == 3


def test_an_answer_that_is_in_time_is_not_marked(served: Served) -> None:
    answer = served.http.post("/v1/chat/completions", json=CHAT | {"on_failure": "partial"})
    assert "error" not in answer.json()["choices"][0]
    assert answer.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_tenant_and_the_service_have_a_default_and_a_part_is_not_kept(idempotent: bool) -> None:
    failover = FailoverConfig(max_attempts=1, on_failure="partial")
    tenants = {"other": TenantConfig(on_failure="error")}
    config = RouterConfig.model_validate(
        CONFIG.model_dump() | {"failover": failover, "tenants": tenants, "cache": {"enabled": True}}
    )
    served = Served(config)
    try:
        served.backend.fault, served.backend.fault_at = LOST, 3
        body = CHAT | {"temperature": 0}
        headers = {"idempotency-key": "k"} if idempotent else {}
        answer = served.http.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.json()["choices"][0]["error"] == ERROR
        other = {"authorization": f"Bearer {OTHER_KEY}"}
        assert served.http.post("/v1/chat/completions", json=body, headers=other).status_code == 503
        served.backend.fault = None
        whole = served.http.post("/v1/chat/completions", json=body, headers=headers)
        assert whole.json()["choices"][0]["message"]["content"] == "".join(WORDS)
        assert whole.headers["x-manta-cache"].startswith("miss")
    finally:
        served.stop()


class FullBackend(ScriptedBackend):
    """The replica of the first attempt is lost after three words. All others are full."""

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        if request.attempt:
            raise ReplicaOverloadedError("full", "fast", 0.01)
        async for deltas in super().generate(tier, request, avoid, on_usage, account, on_placed):
            yield deltas


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_finds_only_full_replicas_keeps_its_part(stream: bool) -> None:
    failover = FailoverConfig(wait_s=0.1, on_failure="partial")
    served = Served(RouterConfig.model_validate(CONFIG.model_dump() | {"failover": failover}))
    served.backend = FullBackend(fault=LOST, fault_at=3)
    try:
        answer = served.http.post("/v1/chat/completions", json=CHAT | {"stream": stream})
        assert answer.status_code == 200
        if stream:
            last = json.loads(answer.text.strip().rpartition("data: ")[2])
            assert last["error"] == ERROR
            return
        (choice,) = answer.json()["choices"]
        assert (choice["message"]["content"], choice["error"]) == ("".join(WORDS[:3]), ERROR)
    finally:
        served.stop()


async def test_what_was_sent_is_kept_if_another_prompt_is_refused() -> None:
    async def events() -> AsyncGenerator[Sequence[AnswerEvent], None]:
        yield [Opened(0, 0)]
        raise ReplicaOverloadedError("full", "fast")

    faults: list[RefusalError] = []
    found = [each async for batch in finish_on_failure(events(), [0, 1], UsageMeter(), faults.append) for each in batch]
    assert [fault.code for fault in faults] == ["overloaded"]
    assert [each.choices for each in found if isinstance(each, Interrupted)] == [{0, 1}]
    assert [each.choice for each in found if isinstance(each, Ended)] == [0, 1]


def test_the_error_is_that_of_the_loss() -> None:
    assert refusal_of(LOST).code == ERROR["code"]
