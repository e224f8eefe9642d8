"""What goes wrong below or in front of the router ends in a clear error, and frees what it held."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx
import openai
import pytest

from engine.api import (
    ContextLengthError,
    EngineDeadError,
    FinishReason,
    GenerationRequest,
    OverloadedError,
    RequestError,
)
from router.ports.tier_backend import ReplicaLostError, ReplicaVersionError, TierStartingError, TierUnavailableError
from tests.router.backend import ScriptedBackend
from tests.router.served import CONFIG, KEY, Served
from tests.router.waiting import wait_for

CHAT: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}

FAULTS = [
    (RequestError("too cold", "temperature"), 400, "invalid_value", "temperature"),
    (ContextLengthError("too long", "prompt", "context_length_exceeded"), 400, "context_length_exceeded", "messages"),
    (OverloadedError("full", 2.5), 429, "overloaded", None),
    (TierUnavailableError("nobody"), 503, "tier_unavailable", None),
    (TierStartingError("at zero", 30.0), 503, "tier_starting", None),
    (ReplicaLostError("gone"), 503, "replica_lost", None),
    (ReplicaVersionError("old"), 503, "version_mismatch", None),
    (EngineDeadError("dead"), 503, "replica_lost", None),
    (RuntimeError("a secret of the implementation"), 500, "internal_error", None),
]


class LateBackend(ScriptedBackend):
    """Says nothing before the end."""

    def _words(self, request: GenerationRequest) -> Sequence[str]:
        return ()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("fault", "status", "code", "param"), FAULTS, ids=lambda v: type(v).__name__)
def test_a_fault_before_the_first_delta_has_its_own_status(
    served: Served, stream: bool, fault: Exception, status: int, code: str, param: str | None
) -> None:
    served.backend.fault = fault
    served.backend.ready = not isinstance(fault, TierUnavailableError)
    response = served.http.post("/v1/chat/completions", json=CHAT | {"stream": stream})
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert response.json()["error"]["param"] == param
    assert "secret" not in response.text
    assert ("retry-after" in response.headers) == (status in (429, 503))


@pytest.mark.parametrize(("fault", "code"), [(f, c) for f, s, c, _ in FAULTS if s >= 500], ids=lambda v: str(v)[:20])
def test_a_fault_in_mid_stream_is_a_frame_and_the_end(served: Served, fault: Exception, code: str) -> None:
    served.backend = ScriptedBackend(fault=fault, fault_at=3)
    response = served.http.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert response.status_code == 200
    *_, last = [frame for frame in response.text.split("\n\n") if frame]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == code
    assert "[DONE]" not in response.text


@pytest.mark.parametrize(
    ("fault", "status"), [(ReplicaLostError("gone"), 503), (OverloadedError("full", 2.5), 429), (RuntimeError(), 500)]
)
@pytest.mark.parametrize("generated", [0, 3])
def test_what_was_generated_is_not_paid_for_again_by_a_retry(
    served: Served, fault: Exception, status: int, generated: int
) -> None:
    served.backend = ScriptedBackend(fault=fault, fault_at=generated)
    response = served.http.post("/v1/chat/completions", json=CHAT)
    assert response.status_code == status
    assert response.headers.get_list("x-should-retry") == (["false"] if generated else [])


def test_the_real_client_does_not_repeat_what_has_generated_tokens(served: Served) -> None:
    served.backend = ScriptedBackend(fault=RuntimeError(), fault_at=3)
    with pytest.raises(openai.InternalServerError):
        served.openai.with_options(max_retries=2).chat.completions.create(model="fast", messages=CHAT["messages"])
    assert len(served.backend.requests) == 1


def test_the_real_client_raises_on_an_error_frame(served: Served) -> None:
    served.backend = ScriptedBackend(fault=ReplicaLostError("the replica was lost"), fault_at=3)
    stream = served.openai.chat.completions.create(model="fast", messages=CHAT["messages"], stream=True)
    with pytest.raises(openai.APIError, match="replica was lost"):
        list(stream)


@pytest.mark.parametrize("reason", [FinishReason.ERROR, FinishReason.ABORT])
def test_a_sequence_that_failed_in_the_engine_is_no_answer(served: Served, reason: FinishReason) -> None:
    served.backend.outcome = reason
    assert served.http.post("/v1/chat/completions", json=CHAT).status_code == 500
    streamed = served.http.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert '"error"' in streamed.text
    assert "[DONE]" not in streamed.text


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_that_waited_past_its_deadline_is_told_so(served: Served, stream: bool) -> None:
    served.backend = LateBackend(outcome=FinishReason.DEADLINE)
    response = served.http.post("/v1/chat/completions", json=CHAT | {"stream": stream, "deadline_s": 0.5})
    assert response.status_code == 408
    assert response.json()["error"]["type"] == "timeout_error"
    assert (response.json()["error"]["code"], response.json()["error"]["param"]) == ("deadline_exceeded", "deadline_s")
    assert served.backend.requests[0].deadline_s == pytest.approx(0.5, abs=0.4)  # less what has passed


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("stall_at", [0, 2])
def test_a_client_that_leaves_ends_the_generation(served: Served, stream: bool, stall_at: int) -> None:
    served.backend = ScriptedBackend(stall_at=stall_at)
    backend = served.backend
    with (
        httpx.Client(base_url=served.url, timeout=0.2, headers={"authorization": f"Bearer {KEY}"}) as client,
        pytest.raises(httpx.ReadTimeout),
    ):
        client.post("/v1/chat/completions", json=CHAT | {"stream": stream})
    wait_for(lambda: backend.closed == 1)


def test_one_failed_prompt_closes_the_others(served: Served) -> None:
    served.backend = ScriptedBackend(fault=ReplicaLostError("gone"), fault_at=2)
    response = served.http.post("/v1/completions", json={"model": "fast", "prompt": ["a", "b", "c"]})
    assert response.status_code == 503
    wait_for(lambda: served.backend.closed == 3)


def test_a_client_that_leaves_ends_all_its_prompts(served: Served) -> None:
    served.backend = ScriptedBackend(stall_at=1)
    with (
        httpx.Client(base_url=served.url, timeout=0.2, headers={"authorization": f"Bearer {KEY}"}) as client,
        pytest.raises(httpx.ReadTimeout),
    ):
        client.post("/v1/completions", json={"model": "fast", "prompt": ["a", "b", "c"]})
    wait_for(lambda: served.backend.closed == 3)


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_over_its_time_ends_in_a_clear_error(stream: bool) -> None:
    served = Served(CONFIG.model_copy(update={"request_timeout_s": 0.2}))
    try:
        served.backend = ScriptedBackend(stall_at=2)
        response = served.http.post("/v1/chat/completions", json=CHAT | {"stream": stream})
        assert response.status_code == (200 if stream else 408)
        assert '"request_timeout"' in response.text
        assert response.headers.get("x-should-retry") == (None if stream else "false")
        wait_for(lambda: served.backend.closed == 1)
    finally:
        served.stop()


def test_a_router_at_its_limit_says_so_and_recovers() -> None:
    served = Served(CONFIG.model_copy(update={"max_concurrent_requests": 1}))
    try:
        served.backend = ScriptedBackend(stall_at=1)
        with served.http.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}):
            refused = served.http.post("/v1/chat/completions", json=CHAT)
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "1"
        wait_for(lambda: served.backend.closed == 1)
        served.backend = ScriptedBackend()
        wait_for(lambda: served.http.post("/v1/chat/completions", json=CHAT).status_code == 200)
    finally:
        served.stop()
