"""Where requests go, and what they say."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Target:
    """An OpenAI-compatible endpoint over plain HTTP. ``path`` is its prefix, usually /v1."""

    host: str
    port: int
    path: str
    key: str = ""

    @classmethod
    def of(cls, url: str, key: str, allow_remote: bool = False) -> Target:
        """Raises ValueError for a URL that is not http, or a host beyond this machine unless ``allow_remote``."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"the URL must be http://host[:port]/..., got {url!r}")
        if not allow_remote and not is_loopback(parts.hostname):
            raise ValueError(f"{parts.hostname} is not this machine; --allow-remote if you may load it")
        return cls(parts.hostname, parts.port or 80, parts.path.rstrip("/"), key)

    def request(self, body: dict[str, Any]) -> bytes:
        """The bytes of a chat completion request that no answer cache may answer: a load test measures generation."""
        content = json.dumps(body).encode()
        host = f"[{self.host}]" if ":" in self.host else self.host
        head = (
            f"POST {self.path}/chat/completions HTTP/1.1\r\nHost: {host}:{self.port}\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Type: application/json\r\n"
            f"Cache-Control: no-cache, no-store\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only be this machine. Other names are not resolved: what they mean may change."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def chat_body(
    prompt: str, *, model: str, max_tokens: int, temperature: float, stream: bool, ignore_eos: bool
) -> dict[str, Any]:
    """A chat completion with one user turn."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": temperature,
        "stream": stream,
    }
    if stream:
        body["stream_options"] = {"include_usage": True}
    if ignore_eos:
        body["ignore_eos"] = True
    return body
