"""The router behind a real HTTP server, over a backend that a test replaces."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Collection, Sequence

import httpx
import openai
import uvicorn

from engine.api import Delta, GenerationRequest
from router.app_factory import build_app
from router.config.failover import FailoverConfig
from router.config.keys import KeyConfig
from router.config.router import RouterConfig
from router.ports.collection_store import CollectionStore
from router.ports.embedder import Embedder
from router.ports.idempotency_store import IdempotencyStore
from router.ports.state_store import StateStore
from router.ports.stream_store import StreamStore
from router.ports.text_log import TextLog
from router.ports.tier_backend import OnOrphans, OnPlaced, OnUsage, TierDescription, TierSnapshot
from router.router_ports import RouterPorts
from safety.api import Guard
from tests.router.backend import ScriptedBackend

KEY, OTHER_KEY = "sk-test", "sk-other"
CONFIG = RouterConfig(
    keys=(KeyConfig(key=KEY, tenant="acme", team="core"), KeyConfig(key=OTHER_KEY, tenant="other", team="x")),
    max_body_bytes=100_000,
    request_timeout_s=20,
    failover=FailoverConfig(max_attempts=1),  # the scripted backend does not continue answers
)


class Served:
    """A router with its backend. ``backend`` may be replaced between requests."""

    def __init__(
        self,
        config: RouterConfig = CONFIG,
        store: StateStore | None = None,
        guard: Guard | None = None,
        embedder: Embedder | None = None,
        collections: CollectionStore | None = None,
        streams: StreamStore | None = None,
        idempotency: IdempotencyStore | None = None,
        texts: TextLog | None = None,
    ) -> None:
        self.backend = ScriptedBackend()
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # so that no small write waits
        listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = build_app(
            config,
            self._Relay(self),
            RouterPorts(
                store=store,
                make_guard=None if guard is None else lambda oversight, store: guard,
                embedder=embedder,
                collections=collections,
                streams=streams,
                idempotency=idempotency,
                texts=texts,
            ),
        )
        # Longer than the 5 s for which the client keeps an idle connection: else both may end one at the same time, and
        # the next test's request is lost with it.
        settings = uvicorn.Config(app, log_level="error", lifespan="on", timeout_keep_alive=30)
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve(sockets=[listener])))
        self._thread.start()
        self.http = httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {KEY}"}, timeout=30)
        self.openai = openai.OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, timeout=30)
        for _ in range(1000):
            if self._server.started:
                break
            self._thread.join(0.01)

    class _Relay:
        """Always the current backend of the server."""

        def __init__(self, served: Served) -> None:
            self._served = served

        async def start(self, on_orphans: OnOrphans) -> None:
            await self._served.backend.start(on_orphans)

        async def close(self) -> None:
            await self._served.backend.close()

        def tiers(self) -> Sequence[TierDescription]:
            return self._served.backend.tiers()

        def snapshot(self) -> Sequence[TierSnapshot]:
            return self._served.backend.snapshot()

        def model_version(self, tier: str, replica_id: str) -> str:
            return self._served.backend.model_version(tier, replica_id)

        def generate(
            self,
            tier: str,
            request: GenerationRequest,
            avoid: Collection[str] = (),
            on_usage: OnUsage | None = None,
            account: str = "",
            on_placed: OnPlaced | None = None,
        ) -> AsyncGenerator[Sequence[Delta], None]:
            return self._served.backend.generate(tier, request, avoid, on_usage, account, on_placed)

    def stop(self) -> None:
        self.http.close()
        self.openai.close()
        self._server.should_exit = True
        self._thread.join()
