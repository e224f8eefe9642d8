"""Keys and tokens are in nothing that the service emits: logs, metrics, headers, errors, usage, records, the config."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Sequence

import pytest

from router.config.keys import KeyConfig, Role
from router.ports.limit_store import LimitName
from router.ports.tier_backend import TierSnapshot
from router.ports.usage_metrics import AdmissionSample, UsageSample
from safety.api import Stage, Verdict
from tests.access.service import Service, config
from tests.router.backend import ScriptedBackend

PLAIN = "sk-plain-0123456789abcdef"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzZWNyZXQiOiJ0b2tlbi1wYXlsb2FkIn0.c2lnbmF0dXJl"
PATHS = ("/v1/models", "/v1/usage", "/v1/nothing", "/admin/v1/keys", "/admin/v1/usage", "/admin/v1/status", "/healthz")


class Emitted:
    """Keeps the labels of all metrics. Implements ``UsageMetrics``."""

    def __init__(self) -> None:
        self.emitted: list[tuple[object, ...]] = []

    def count(self, sample: UsageSample) -> None:
        self.emitted.append((sample,))

    def near_limit(self, tenant: str, scope: str, limit: LimitName) -> None:
        self.emitted.append((tenant, scope, limit))

    def refused(self, tenant: str, scope: str, limit: LimitName) -> None:
        self.emitted.append((tenant, scope, limit))

    def failover(self, tier: str, kind: str) -> None:
        self.emitted.append((tier, kind))

    def speculation(self, tier: str, outcome: str) -> None:
        self.emitted.append((tier, outcome))

    def admission(self, sample: AdmissionSample) -> None:
        self.emitted.append((sample,))

    def verdicts(self, stage: Stage, verdicts: Iterable[Verdict]) -> None:
        self.emitted.append((stage, *verdicts))


class Broken(ScriptedBackend):
    """Fails with the key in its error, as a careless library could."""

    secret = ""

    def snapshot(self) -> Sequence[TierSnapshot]:
        raise RuntimeError(f"lost {self.secret}")


@pytest.mark.parametrize("role", [Role.USER, Role.ADMIN])
async def test_no_secret_leaves_the_service(role: Role, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = config()
    settings = settings.model_copy(
        update={"keys": (*settings.keys, KeyConfig(key=PLAIN, tenant="acme", team="core", role=role))}
    )
    metrics = Emitted()
    service = Service(settings, metrics=metrics)
    created = await service.create(role=role.value, limits={"requests_per_minute": 1})
    secret = created["key"].rpartition("-")[2]
    emitted = []
    for key in (created["key"], created["key"][:-1], PLAIN, TOKEN):
        async with service.client(key) as http:
            for method in ("GET", "POST"):
                for path in PATHS:
                    answer = await http.request(method, path, json={"tenant": key, "surprise": key})
                    emitted.append(f"{answer.headers} {answer.text}")
            for body in ({"model": key, "prompt": "Hi"}, {"model": "fast", "prompt": "Hi"}, {"key": key}):
                answer = await http.post("/v1/completions", json=body)
                # The name of a model that does not exist is repeated to the client that has sent it, and to it alone.
                emitted.append(f"{answer.headers} {answer.text.replace(key[:64], '')}")
    emitted += [str(record.document) for record in service.store._keys.values()]
    emitted += [str(entry) for entry in service.store._entries.values()]
    emitted += [repr(settings), str(settings), repr(service.app.__dict__), caplog.text]
    emitted += [str(metrics.emitted), str(settings.keys)]
    assert metrics.emitted
    for text in emitted:
        for hidden in (secret, PLAIN, TOKEN.split(".")[1], TOKEN.split(".")[2]):
            assert hidden not in text


async def test_an_error_with_a_key_in_it_is_logged_without_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    backend = Broken()
    backend.secret = PLAIN
    service = Service(backend=backend)
    async with service.client() as http:
        answer = await http.get("/admin/v1/status")
    assert answer.status_code == 500
    assert PLAIN not in caplog.text + answer.text + str(answer.headers) + "".join(traceback.format_stack())
