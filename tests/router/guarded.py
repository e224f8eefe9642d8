"""A router with a guard whose policies and classifier a test sets."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from typing import Any

import httpx

from engine.api import Delta, GenerationRequest, Usage
from router.config.keys import KeyConfig
from router.config.limits import LimitsConfig
from router.config.router import RouterConfig
from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from router.ports.tier_backend import OnPlaced, OnUsage
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from tests.router.backend import ScriptedBackend
from tests.router.policies import Policies
from tests.router.served import KEY, OTHER_KEY, Served
from tests.safety.scripted_classifier import ScriptedClassifier

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
LIMITS = LimitsConfig(requests_per_minute=1000, tokens_per_minute=100_000)
CONFIG = RouterConfig(
    keys=(
        KeyConfig(key=KEY, tenant="acme", team="core", limits=LIMITS),
        KeyConfig(key=OTHER_KEY, tenant="other", team="x"),
    ),
)


class SettlingBackend(ScriptedBackend):
    """Reports its token counts after an abort, as an engine does."""

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        seen = 0
        try:
            async with aclosing(super().generate(tier, request, avoid)) as batches:
                async for batch in batches:
                    seen += len(batch)
                    if batch[-1].last:
                        on_usage = None
                    yield batch
        finally:
            if on_usage is not None:
                on_usage(Usage(3, seen, 0))


class Guarded:
    """A router with a guard, its classifier, policies and store."""

    def __init__(self) -> None:
        self.policies, self.classifier = Policies(), ScriptedClassifier()
        self.store = MemoryStore(SystemClock())
        guard = PolicyGuard(self.policies, Parts(self.classifier))
        self.served = Served(CONFIG, self.store, guard)

    def ask(self, text: str = "Hi", key: str = KEY, **more: Any) -> httpx.Response:
        return self.post(CHAT, {"messages": [{"role": "user", "content": text}], **more}, key)

    def post(self, path: str, body: dict[str, Any], key: str = KEY) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        return self.served.http.post(path, json={"model": "fast", **body}, headers=headers)

    def entries(self) -> list[dict[str, Any]]:
        """The ledger's documents, in order."""
        return [json.loads(entry.document) for entry in self.store._entries.values()]

    def reset(self) -> None:
        """Forgets everything of the test before."""
        self.served.backend = SettlingBackend()
        self.classifier.mode = "well"
        self.classifier.texts.clear()
        self.classifier.urgent.clear()
        self.policies.found.clear()
        self.store._entries.clear()


def texts_of(answer: httpx.Response, stream: bool) -> dict[int, tuple[str, str]]:
    """The text and the finish reason of each choice, of a whole response or a stream."""
    if not stream:
        return {each["index"]: (content_of(each), each["finish_reason"]) for each in answer.json()["choices"]}
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    found: dict[int, tuple[str, str]] = {}
    for line in lines[:-1]:
        for each in json.loads(line)["choices"]:
            text, reason = found.get(each["index"], ("", ""))
            found[each["index"]] = (text + content_of(each), each["finish_reason"] or reason)
    return found


def content_of(choice: dict[str, Any]) -> str:
    if "text" in choice:
        return str(choice["text"])
    return str((choice.get("message") or choice["delta"]).get("content") or "")
