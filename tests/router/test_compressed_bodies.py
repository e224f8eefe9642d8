"""Bodies with a content coding, as some clients and proxies send them."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import httpx
import pytest

from tests.router.served import CONFIG, Served

CHAT: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
BODY = json.dumps(CHAT).encode()
LIMIT = CONFIG.max_body_bytes


def post(served: Served, body: bytes, coding: str, path: str = "/v1/chat/completions") -> httpx.Response:
    return served.http.post(path, content=body, headers={"content-encoding": coding})


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)),
        ("GZIP", gzip.compress(BODY, mtime=0)),
        ("x-gzip", gzip.compress(BODY, mtime=0)),
        ("deflate", zlib.compress(BODY)),
        ("identity", BODY),
        ("", BODY),
    ],
    ids=str,
)
def test_a_compressed_body_is_read(served: Served, coding: str, body: bytes) -> None:
    """ollama/ollama#12386, QuantumNous/new-api#4913, braintrustdata/braintrust-sdk-javascript#2411: it was parsed as
    JSON as it came."""
    answer = post(served, body, coding)

    assert answer.status_code == 200, answer.text
    (prompt,) = [request.prompt for request in served.backend.requests]
    assert prompt.messages[0].content == "Hi"  # type: ignore[union-attr]


@pytest.mark.parametrize("coding", ["zstd", "br", "gzip, gzip", "nonsense"])
def test_another_coding_is_refused_with_those_that_are_read(served: Served, coding: str) -> None:
    answer = post(served, b"(\xb5/\xfd", coding)

    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_content_encoding")
    assert answer.headers["accept-encoding"] == "gzip, deflate"
    assert served.backend.requests == []


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        gzip.compress(BODY, mtime=0)[:-9],
        gzip.compress(BODY, mtime=0) + b"{}",
        gzip.compress(BODY, mtime=0) * 2,
        b"\x1f\x8b",
    ],
    ids=["plain", "cut", "more", "twice", "head"],
)
def test_a_body_that_is_not_what_its_header_says_is_the_clients_fault(served: Served, body: bytes) -> None:
    answer = post(served, body, "gzip")

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_content_encoding")


@pytest.mark.parametrize("megabytes", [1, 64])
def test_a_body_that_is_too_large_when_it_is_decoded_is_refused(served: Served, megabytes: int) -> None:
    packed = gzip.compress(b" " * (megabytes << 20))
    assert len(packed) < LIMIT

    answer = post(served, packed, "gzip")

    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_a_body_of_just_the_limit_is_read(served: Served) -> None:
    full = BODY + b" " * (LIMIT - len(BODY))

    assert post(served, gzip.compress(full), "gzip").status_code == 200
    assert post(served, gzip.compress(full + b" "), "gzip").status_code == 413


@pytest.mark.parametrize("path", ["/v1/models", "/v1/collections"])
def test_a_request_without_a_body_needs_no_decoding(served: Served, path: str) -> None:
    """The second path reads its empty body."""
    assert served.http.get(path, headers={"content-encoding": "gzip"}).status_code == 200
