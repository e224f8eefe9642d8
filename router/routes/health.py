"""``HealthRoute``: answers /healthz, by which load balancers know whether the service is ready, and /health, by which
tools for vLLM do."""

from __future__ import annotations

from collections.abc import Sequence

from router.errors import RefusalError
from router.openai.errors import error_body
from router.ports.tier_backend import TierBackend
from router.routes.error_bodies import ErrorBodies
from router.transport.http_exchange import HttpExchange

PATHS = ("/healthz", "/health")


class HealthRoute:
    """Answers 200 when every tier has a ready replica, or may be without one; otherwise 503."""

    def __init__(self, backend: TierBackend) -> None:
        self._backend = backend

    def methods(self, path: str) -> Sequence[str] | None:
        return ("GET", "HEAD") if path in PATHS else None

    def error_body(self, refusal: RefusalError) -> str:
        return error_body(refusal)

    async def answer(self, exchange: HttpExchange, path: str, errors: ErrorBodies) -> None:
        tiers = self._backend.snapshot()
        ready = bool(tiers) and all(tier.available for tier in tiers)
        document = {
            "status": "ready" if ready else "starting",
            "tiers": {tier.name: {"ready": tier.available, "replicas": len(tier.replicas)} for tier in tiers},
        }
        await exchange.answer(200 if ready else 503, document)
