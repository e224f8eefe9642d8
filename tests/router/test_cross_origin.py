"""Web pages of the origins that the operator allows call the API from a browser; others do not. As reported for other
services: bricks-cloud/BricksLLM#45, paiml/aprender#671, dphnAI/sonar#434 (a preflight has no key)."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from router.app_factory import build_app
from router.config.cors import CorsConfig
from tests.router.backend import ScriptedBackend
from tests.router.served import CONFIG, KEY

PAGE, OTHER = "https://chat.example.com", "https://evil.example"
CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
ASKED = "authorization, content-type, x-stainless-lang"


def client(*allowed: str) -> httpx.AsyncClient:
    config = CONFIG.model_copy(update={"cors": CorsConfig(allowed_origins=allowed)})
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(build_app(config, ScriptedBackend())), base_url="http://test"
    )


def preflight(origin: str) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": ASKED,
    }


@pytest.mark.parametrize("allowed", [PAGE, "*"])
async def test_a_page_asks_without_a_key_and_then_reads_the_answer(allowed: str) -> None:
    async with client(allowed) as http:
        asked = await http.options(CHAT, headers=preflight(PAGE))
        answer = await http.post(CHAT, json=BODY, headers={"origin": PAGE, "authorization": f"Bearer {KEY}"})

    assert (asked.status_code, asked.content) == (204, b"")
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert asked.headers["access-control-allow-methods"] == "POST"
    assert asked.headers["access-control-allow-headers"] == ASKED
    assert int(asked.headers["access-control-max-age"]) > 0
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["vary"] == "origin"
    assert {"x-request-id", "x-manta-tier", "retry-after"} <= set(
        answer.headers["access-control-expose-headers"].split(", ")
    )
    assert "access-control-allow-credentials" not in answer.headers


async def test_a_page_reads_errors_too() -> None:
    async with client(PAGE) as http:
        no_key = await http.post(CHAT, json=BODY, headers={"origin": PAGE})
        no_path = await http.options("/v1/nothing", headers=preflight(PAGE))

    assert (no_key.status_code, no_path.status_code) == (401, 404)
    for answer in (no_key, no_path):
        assert answer.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [((), PAGE), ((PAGE,), OTHER), ((PAGE,), "null"), ((PAGE,), f"{PAGE}.evil.example"), ((PAGE,), PAGE.upper())],
)
async def test_others_may_not(allowed: tuple[str, ...], origin: str) -> None:
    async with client(*allowed) as http:
        asked = await http.options(CHAT, headers=preflight(origin))
        answer = await http.post(CHAT, json=BODY, headers={"origin": origin, "authorization": f"Bearer {KEY}"})

    assert asked.status_code == 405
    for each in (asked, answer):
        assert not [name for name in each.headers if name.startswith("access-control")]
        assert ("vary" in each.headers) == bool(allowed)


async def test_what_is_no_preflight_is_a_wrong_method() -> None:
    async with client("*") as http:
        answer = await http.options(CHAT, headers={"origin": PAGE})

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("asked", ["a\tb", "a b", "é", "a" * 3000, ","])
async def test_names_of_headers_that_are_none_are_not_repeated(asked: str) -> None:
    async with client("*") as http:
        headers = [(name, value) for name, value in preflight(PAGE).items() if name != "access-control-request-headers"]
        sent = [*headers, ("access-control-request-headers", asked)]
        answer = await http.options(CHAT, headers=[(name.encode(), value.encode("latin-1")) for name, value in sent])

    assert answer.status_code == 204
    assert "access-control-allow-headers" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["chat.example.com", "https://a b", "", "https://", f"{PAGE}/", PAGE.upper(), "https://*.example.com"]
)
def test_an_origin_that_no_browser_sends_is_refused_at_start(origin: str) -> None:
    with pytest.raises(ValidationError):
        CorsConfig(allowed_origins=(origin,))
