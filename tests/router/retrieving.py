"""A router with an embedder, collections and a guard, and a model whose answer a test sets."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import httpx

from engine.api import Conversation, GenerationRequest
from router.config.keys import KeyConfig, Role
from router.config.limits import LimitsConfig
from router.config.retrieval import RetrievalConfig
from router.config.router import RouterConfig
from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from router.ports.collection_store import CollectionStore
from router.ports.embedder import Embedder
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from tests.embedder.fake_embedder import FakeEmbedder
from tests.router.backend import ScriptedBackend
from tests.router.policies import Policies
from tests.router.served import KEY, OTHER_KEY, Served
from tests.safety.scripted_classifier import ScriptedClassifier

VIEWER_KEY, LIMITED_KEY = "sk-viewer", "sk-limited"
CHAT, COLLECTIONS = "/v1/chat/completions", "/v1/collections"
CONFIG = RouterConfig(
    keys=(
        KeyConfig(key=KEY, tenant="acme", team="core"),
        KeyConfig(key=OTHER_KEY, tenant="other", team="x"),
        KeyConfig(key=VIEWER_KEY, tenant="acme", team="core", role=Role.VIEWER),
        KeyConfig(key=LIMITED_KEY, tenant="small", team="x", limits=LimitsConfig(requests_per_minute=2)),
    ),
    retrieval=RetrievalConfig(max_collections=4, max_documents=120, max_chunks=400, max_bytes=200_000),
)


class SayingBackend(ScriptedBackend):
    """Says ``words``."""

    words: Sequence[str] = ("Hello",)

    def _words(self, request: GenerationRequest) -> Sequence[str]:
        return self.words


class Retrieving:
    """The router. ``store`` keeps the collections; None: its memory does. ``clean``: whether to begin without any."""

    def __init__(self, embedder: Embedder | None, store: CollectionStore | None = None, *, clean: bool = True) -> None:
        self.policies, self.classifier = Policies(), ScriptedClassifier()
        self.served_embedder = embedder
        self.ledger = MemoryStore(SystemClock())
        guard = PolicyGuard(self.policies, Parts(self.classifier))
        self.served = Served(CONFIG, self.ledger, guard, embedder=embedder, collections=store)
        self.backend = self.served.backend = SayingBackend()
        if clean:
            self.reset()

    def reset(self) -> None:
        """Forgets what the test before has set."""
        self.backend = self.served.backend = SayingBackend()
        self.policies.found.clear()
        for key in (KEY, OTHER_KEY):
            for each in self.call("GET", "", key=key).json()["data"]:
                self.call("DELETE", f"/{each['name']}", key=key)

    def call(self, method: str, path: str = "", body: Any = None, key: str = KEY) -> httpx.Response:
        """Calls a path under /v1/collections."""
        headers = {"authorization": f"Bearer {key}"}
        return self.served.http.request(method, f"{COLLECTIONS}{path}", json=body, headers=headers)

    def add(self, name: str, *documents: dict[str, Any], key: str = KEY) -> None:
        """Adds documents to a collection, which is created if it is not there, and waits for their vectors."""
        self.call("POST", body={"name": name}, key=key)
        answer = self.call("POST", f"/{name}/documents", {"documents": list(documents)}, key)
        assert answer.status_code == 200, answer.text
        for _ in range(500):
            if self.call("GET", f"/{name}", key=key).json()["state"] != "embedding":
                return
            time.sleep(0.01)
        raise AssertionError("the documents are not embedded")

    def ask(
        self, text: str = "Where is the harbour?", key: str = KEY, says: str = "Hello", **more: Any
    ) -> httpx.Response:
        """Asks the model, which answers ``says``."""
        self.backend.words = [word + " " for word in says.split(" ")[:-1]] + says.split(" ")[-1:]
        body = {"model": "fast", "messages": [{"role": "user", "content": text}], **more}
        return self.served.http.post(CHAT, json=body, headers={"authorization": f"Bearer {key}"})

    @property
    def context(self) -> str:
        """The context that the model was given last; empty without one."""
        prompt = self.backend.requests[-1].prompt
        assert isinstance(prompt, Conversation)
        return prompt.messages[-2].content if len(prompt.messages) > 1 else ""

    def entries(self) -> list[dict[str, Any]]:
        """The ledger's documents, in order."""
        return [json.loads(entry.document) for entry in self.ledger._entries.values()]


def embedding() -> Retrieving:
    """A router with the deterministic embedder of the tests."""
    return Retrieving(FakeEmbedder())
