"""The whole way of a request, on a real Ray cluster with the embedded models, as its users see it."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.cluster.graph import KEY, Graph, eventually
from tests.cluster.workers import actor_pids

pytestmark = pytest.mark.slow

TIERS = ("fast", "balanced", "frontier")
ABORTED_S = 2.0  # after the death of a router, for its work to end: a second, and another one for a busy machine
UNCACHED = {"cache": {"mode": "off"}}  # answers are to be generated, not given again
QUESTION: list[Any] = [{"role": "user", "content": "Hello! Who are you?"}]


def stream_lines(response: httpx.Response) -> list[dict[str, Any]]:
    """The JSON of every frame, [DONE] left out but demanded."""
    frames = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    assert frames[-1] == "[DONE]" or "error" in frames[-1]
    return [json.loads(frame) for frame in frames if frame != "[DONE]"]


def answer(graph: Graph, prompt: str, *, model: str = "fast", max_tokens: int = 24, **extra: Any) -> str:
    response = graph.post(
        "/v1/chat/completions",
        {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": max_tokens,
            **UNCACHED,
            **extra,
        },
    )
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def answers_again(graph: Graph, model: str) -> None:
    """On a busy machine a replacement takes longer to start than a request waits."""
    question = {"model": model, "messages": QUESTION, "max_tokens": 4}
    eventually(lambda: graph.post("/v1/chat/completions", question).status_code == 200, f"{model} answers again")


@pytest.mark.parametrize("tier", TIERS)
def test_each_tier_streams_what_it_also_answers_at_once(graph: Graph, tier: str) -> None:
    chat = graph.client().chat.completions
    options: Any = {"include_usage": True}
    common: Any = {"model": tier, "messages": QUESTION, "temperature": 0, "max_tokens": 32, "extra_body": UNCACHED}
    whole = chat.create(**common)
    chunks = list(chat.create(**common, stream=True, stream_options=options))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


def test_models_are_the_tiers_auto_and_the_embedder(graph: Graph) -> None:
    models = {model.id for model in graph.client().models.list()}
    assert models - {"all-MiniLM-L6-v2"} == {*TIERS, "auto"}  # the package of the embedding model may be missing


@pytest.mark.parametrize(
    ("prompt", "tier"),
    [('Which language is this? "Das Haus ist sehr klein und alt."', "fast"), ("What is (34 + 57) - 26?", "frontier")],
)
def test_auto_names_its_tier_and_its_reason(graph: Graph, prompt: str, tier: str) -> None:
    response = graph.post(
        "/v1/chat/completions",
        {"model": "auto", "messages": [{"role": "user", "content": prompt}], "max_tokens": 2},
    )
    assert response.status_code == 200
    assert response.headers["x-manta-tier"] == tier
    assert response.headers["x-manta-route-reason"].startswith("auto; expected fast ")


def test_32_streams_at_once_answer_what_each_answers_alone(graph: Graph) -> None:
    prompts = [f"Tell me about the number {i} and {'why ' * (i % 7)}it matters." for i in range(32)]
    alone = [answer(graph, prompt) for prompt in prompts]
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda prompt: answer(graph, prompt), prompts))
    assert together == alone


def test_a_repeated_prompt_is_served_from_the_prefix_cache_but_only_to_its_tenant(graph: Graph) -> None:
    body = {
        "model": "fast",
        "messages": [{"role": "user", "content": "The same long question, asked again. " * 12}],
        "max_tokens": 2,
        "temperature": 0,
        **UNCACHED,
    }

    def cached(key: str) -> int:
        usage = graph.post("/v1/chat/completions", body, key=key).json()["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    assert cached(KEY) == 0
    assert cached(KEY) > 0
    assert cached("sk-manta-other") == 0


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_blocks(graph: Graph, stream: bool) -> None:
    before = graph.describe("frontier")[0].stats
    body = {"model": "frontier", "messages": QUESTION, "stream": stream, "max_tokens": 900, "ignore_eos": True}
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=graph.url, headers=headers, timeout=30) as client:
        if stream:
            with client.stream("POST", "/v1/chat/completions", json=body) as response:
                next(response.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/chat/completions", json=body, timeout=0.5)
    eventually(lambda: graph.describe("frontier")[0].stats.running == 0, "the request is gone")
    after = graph.describe("frontier")[0]
    assert after.stats.aborted == before.aborted + 1
    assert after.stats.blocks_used == 0
    assert after.requests == 0
    assert after.stats.generated_tokens - before.generated_tokens < 900


GOOD: dict[str, Any] = {"model": "fast", "messages": QUESTION, "max_tokens": 2}


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "gpt-4"}, 404, "model"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"messages": "hello"}, 400, "messages"),
        ({"messages": []}, 400, "messages"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"messages": [{"role": "user", "content": "word " * 5000}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "a\u0000b"}]}, 400, "messages[0].content"),
        ({"no_such_field": 1}, 400, "no_such_field"),
    ],
)
def test_bad_fields_are_named_and_the_next_request_works(
    graph: Graph, change: dict[str, Any], status: int, param: str
) -> None:
    response = graph.post("/v1/chat/completions", GOOD | change)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert graph.post("/v1/chat/completions", GOOD).status_code == 200


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"{not json", 400), (b"[1, 2]", 400), (b"x" * 10_000_000, 413), (b'{"model": "\xff"}', 400)],
    ids=["not-json", "array", "10MB", "not-utf8"],
)
def test_bad_bodies_get_a_clear_error_through_the_ingress(graph: Graph, content: bytes, status: int) -> None:
    response = httpx.post(
        f"{graph.url}/v1/chat/completions",
        content=content,
        headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"},
        timeout=60,
    )
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("key", [None, "sk-wrong"])
def test_a_missing_or_wrong_key_is_refused(graph: Graph, key: str | None) -> None:
    response = graph.post("/v1/chat/completions", GOOD, key=key)
    assert response.status_code == 401
    assert response.json()["error"]["code"]


@pytest.mark.parametrize(
    "header",
    [{"x-request-timeout-seconds": "0.1"}, {"x-request-disconnect-disabled": "?1"}],
    ids=lambda h: next(iter(h)),
)
def test_no_client_can_have_serve_cut_its_stream(graph: Graph, header: dict[str, str]) -> None:
    body = {"model": "frontier", "messages": QUESTION, "stream": True, "max_tokens": 200, "ignore_eos": True}
    response = graph.post("/v1/chat/completions", body, headers=header)
    assert response.status_code == 200
    assert stream_lines(response)[-1]["choices"][0]["finish_reason"] == "length"


def test_killing_a_replica_pauses_its_streams_and_they_go_on(graph: Graph) -> None:
    body = {"model": "balanced", "messages": QUESTION, "stream": True, "max_tokens": 900, "ignore_eos": True, "seed": 5}
    body |= UNCACHED | {"stream_options": {"include_usage": True}}
    (victim,) = graph.describe("balanced")
    with httpx.stream(
        "POST", f"{graph.url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=120
    ) as response:
        assert response.status_code == 200
        eventually(lambda: graph.describe("balanced")[0].stats.running == 1, "the stream runs")
        os.kill(victim.pid, signal.SIGKILL)
        frames = stream_lines(response)
    assert frames[-1]["usage"]["completion_tokens"] == 900
    assert frames[-1]["usage"]["failover_details"] == {"failovers": 1, "other_version": False}
    undisturbed = graph.post("/v1/chat/completions", {**body, "stream": False} | {"stream_options": None})
    text = "".join(choice["delta"].get("content") or "" for frame in frames for choice in frame["choices"])
    assert text == undisturbed.json()["choices"][0]["message"]["content"]
    assert graph.describe("balanced")[0].pid != victim.pid


def test_a_whole_answer_says_that_another_replica_went_on_with_it(graph: Graph) -> None:
    (victim,) = graph.describe("fast")
    body = {"model": "fast", "messages": QUESTION, "max_tokens": 900, "ignore_eos": True} | UNCACHED
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(graph.post, "/v1/chat/completions", body)
        eventually(lambda: graph.describe("fast")[0].stats.running == 1, "the request runs")
        os.kill(victim.pid, signal.SIGKILL)
        response = waiting.result()
    assert response.status_code == 200
    assert response.headers["x-manta-failovers"] == "1"
    assert response.json()["usage"]["completion_tokens"] == 900


def test_a_router_that_dies_takes_its_requests_with_it_and_is_replaced(graph: Graph) -> None:
    body = {"model": "frontier", "messages": QUESTION, "stream": True, "max_tokens": 900, "ignore_eos": True}
    before = graph.describe("frontier")[0].stats
    (router,) = actor_pids("ServeReplica:manta:Router")
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.stream("POST", f"{graph.url}/v1/chat/completions", json=body, headers=headers, timeout=60) as response:
        lines = response.iter_lines()
        next(lines)
        os.kill(router, signal.SIGKILL)
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    eventually(lambda: graph.describe("frontier")[0].stats.running == 0, "the request is gone", ABORTED_S)
    after = graph.describe("frontier")[0].stats
    assert after.aborted == before.aborted + 1
    assert after.blocks_used == 0
    eventually(graph.ready, "another router is ready")
    assert answer(graph, "hello", model="frontier")
