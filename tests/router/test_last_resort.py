"""What no room expected: still an answer in OpenAI's shape, nothing held, and nobody's words in the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Any

import pytest
from starlette.types import Message

from engine.api import Delta, GenerationRequest
from router.app_factory import build_app
from router.ports.tier_backend import OnPlaced, OnUsage, TierSnapshot
from tests.router.asgi_client import Client
from tests.router.backend import ScriptedBackend
from tests.router.served import CONFIG, Served

SECRET = "the prompt of somebody"
CHAT: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": SECRET}]}


class BrokenSnapshot(ScriptedBackend):
    """Fails even when it is asked about its load."""

    def snapshot(self) -> Sequence[TierSnapshot]:
        raise RuntimeError(SECRET)


class EndsEarly(ScriptedBackend):
    """Its answers stop without a finish reason."""

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        yield [Delta(request.request_id, (1,), "Hel")]


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/v1/models/fast"])
def test_a_backend_that_raises_anywhere_is_a_500_in_shape(served: Served, path: str) -> None:
    served.backend = BrokenSnapshot()
    response = served.http.get(path)
    assert response.status_code == 500
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert SECRET not in response.text
    assert response.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("fault_at", [0, 2])
def test_an_unforeseen_error_is_logged_with_its_place_and_without_its_words(
    served: Served, caplog: pytest.LogCaptureFixture, fault_at: int
) -> None:
    served.backend = ScriptedBackend(fault=ValueError(f"cannot read {SECRET}"), fault_at=fault_at)
    with caplog.at_level(logging.DEBUG):
        response = served.http.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert '"internal_error"' in response.text
    assert "ValueError" in caplog.text
    assert "in generate" in caplog.text
    assert response.headers["x-request-id"] in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in response.text


@pytest.mark.parametrize("prompt", ["one", ["one", "two"]])
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_without_an_end_is_no_answer(served: Served, stream: bool, prompt: str | list[str]) -> None:
    served.backend = EndsEarly()
    response = served.http.post("/v1/completions", json={"model": "fast", "prompt": prompt, "stream": stream})
    assert response.status_code == (200 if stream else 500)
    assert '"engine_error"' in response.text
    assert "[DONE]" not in response.text


def test_no_tiers_at_all_is_not_healthy(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.backend, "names", ())
    assert served.http.get("/healthz").status_code == 503


@pytest.mark.parametrize("path", ["/healthz", "/v1/models"])
def test_head_is_get_without_a_body(served: Served, path: str) -> None:
    response = served.http.head(path)
    assert response.status_code == 200
    assert response.content == b""


async def test_a_client_that_stops_reading_does_not_hold_its_place() -> None:
    config = CONFIG.model_copy(update={"request_timeout_s": 0.1, "max_concurrent_requests": 1})
    backend = ScriptedBackend()
    app = build_app(config, backend)
    stuck = Client(CHAT | {"stream": True}, reads=2)
    await asyncio.wait_for(app(stuck.scope(), stuck.receive, stuck.send), timeout=10)
    assert backend.closed == 1
    prompt = Client(CHAT)
    await app(prompt.scope(), prompt.receive, prompt.send)
    assert prompt.sent[0]["status"] == 200


async def test_a_request_that_is_cut_from_above_tells_its_client() -> None:
    backend = ScriptedBackend(stall_at=2)
    client = Client(CHAT | {"stream": True})
    task = asyncio.ensure_future(build_app(CONFIG, backend)(client.scope(), client.receive, client.send))
    for _ in range(50):
        await asyncio.sleep(0)
    assert client.sent
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert '"request_cancelled"' in client.text
    assert client.sent[-1].get("more_body", False) is False
    assert backend.closed == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("reads", [0, 1, 2])
async def test_wherever_a_client_leaves_the_generation_is_closed(stream: bool, reads: int) -> None:
    backend = ScriptedBackend(stall_at=4)
    client = Client(CHAT | {"stream": stream}, reads=reads)
    task = asyncio.ensure_future(build_app(CONFIG, backend)(client.scope(), client.receive, client.send))
    for _ in range(50):
        await asyncio.sleep(0)
    assert backend.closed == 0
    client.left.set()
    await asyncio.wait_for(task, timeout=5)
    assert backend.closed == 1


async def test_a_request_that_is_refused_at_once_is_sent_in_full_and_leaves_no_task() -> None:
    client = Client({**CHAT, "messages": []})
    received = 0

    async def receive() -> Message:
        nonlocal received
        received += 1
        return await client.receive()

    await build_app(CONFIG, ScriptedBackend())(client.scope(), receive, client.send)

    assert [message["type"] for message in client.sent] == ["http.response.start", "http.response.body"]
    assert client.sent[0]["status"] == 400
    assert received == 1, "the body, and nothing that watches the connection"
    assert asyncio.all_tasks() == {asyncio.current_task()}
