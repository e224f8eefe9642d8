"""Tiers of any number and name, aliases, keys that may use some tiers; a backend that starts and stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import httpx
import pytest
from starlette.types import Message

from engine.api import Conversation
from engine.api import Message as Turn
from router.app_factory import build_app
from router.config.auto import AutoConfig
from router.config.keys import KeyConfig
from router.config.router import RouterConfig
from router.errors import NotFoundError
from router.ports.clock import Clock
from router.router_ports import RouterPorts
from router.tiers.choose_tier import TierChoice, choose_tier, thresholds
from tests.router.backend import ScriptedBackend

FOUR = ("tiny", "small", "medium", "large")
ALIASES = {"gpt-4o-mini": "small", "gpt-4o": "large"}
EASY = Conversation((Turn("user", "Hello"),))


class FourTiers(ScriptedBackend):
    names: Sequence[str] = FOUR


class StoppedClock:
    """A clock that stands at one time."""

    def now(self) -> float:
        return 1_700_000_000.0

    def monotonic(self) -> float:
        return 5.0


def config(**settings: object) -> RouterConfig:
    keys = (
        KeyConfig(key="sk-all", tenant="a", team="x"),
        KeyConfig(key="sk-some", tenant="b", team="x", tiers=("tiny", "small")),
    )
    return RouterConfig.model_validate({"keys": keys, "auto": None, "aliases": ALIASES} | settings)


def client(settings: RouterConfig, key: str = "sk-all", clock: Clock | None = None) -> httpx.AsyncClient:
    ports = RouterPorts() if clock is None else RouterPorts(clock=clock)
    transport = httpx.ASGITransport(build_app(settings, FourTiers(), ports))
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers={"authorization": f"Bearer {key}"})


async def test_four_tiers_of_other_names_serve_with_aliases_and_without_auto() -> None:
    async with client(config()) as http:
        for model, tier, reason in [
            ("medium", "medium", "explicit"),
            ("gpt-4o", "large", "alias gpt-4o"),
            ("gpt-4o-mini", "small", "alias gpt-4o-mini"),
        ]:
            answer = await http.post("/v1/completions", json={"model": model, "prompt": "Hi"})
            assert answer.status_code == 200
            assert (answer.headers["x-manta-tier"], answer.headers["x-manta-route-reason"]) == (tier, reason)
        refused = await http.post("/v1/completions", json={"model": "auto", "prompt": "Hi"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("key", "names"),
    [("sk-all", [*FOUR, "auto", "gpt-4o-mini", "gpt-4o"]), ("sk-some", ["tiny", "small", "auto", "gpt-4o-mini"])],
)
async def test_a_key_sees_the_models_that_it_may_use(key: str, names: list[str]) -> None:
    async with client(config(auto=AutoConfig()), key, StoppedClock()) as http:
        models = (await http.get("/v1/models")).json()["data"]
        assert [model["id"] for model in models] == names
        by_name = {model["id"]: model for model in models}
        assert by_name["gpt-4o-mini"]["root"] == "small-model"
        assert by_name["small"]["context_length"] == by_name["auto"]["context_length"] == 1024
        assert {model["created"] for model in models} == {1_700_000_000}
        one = await http.get("/v1/models/gpt-4o")
        assert one.status_code == (200 if "gpt-4o" in names else 404)


async def test_a_tier_that_a_key_may_not_use_is_refused_by_its_name() -> None:
    async with client(config(auto=AutoConfig(thresholds={"large": 0.0})), "sk-some") as http:
        for model, status, named in (("large", 403, "'large'"), ("gpt-4o", 403, "'large'"), ("none", 404, "'none'")):
            refused = await http.post("/v1/completions", json={"model": model, "prompt": "Hi"})
            assert refused.status_code == status
            assert named in refused.json()["error"]["message"]
        answer = await http.post("/v1/completions", json={"model": "auto", "prompt": "Hi"})
        assert answer.headers["x-manta-tier"] == "tiny"


@pytest.mark.parametrize(
    ("tiers", "expected"),
    [
        (("only",), {"only": 0.0}),
        (("a", "b"), {"a": 0.0, "b": 0.30}),
        (("a", "b", "c"), {"a": 0.0, "b": 0.30, "c": 0.55}),
        (FOUR, {"tiny": 0.0, "small": 0.30, "medium": 0.425, "large": 0.55}),
    ],
)
def test_without_thresholds_the_tiers_share_the_scores(tiers: Sequence[str], expected: Mapping[str, float]) -> None:
    assert thresholds(tiers, AutoConfig()) == pytest.approx(expected)


def test_a_tier_without_a_threshold_is_never_chosen_by_auto() -> None:
    auto = AutoConfig(thresholds={"small": 0.0})
    assert thresholds(FOUR, auto) == {"tiny": 0.0, "small": 0.0}
    assert choose_tier("auto", [EASY], None, TierChoice(FOUR, auto)).tier == "small"


def test_an_alias_of_auto_chooses() -> None:
    choice = TierChoice(FOUR, AutoConfig(), aliases={"default": "auto"})
    assert choose_tier("default", [EASY], None, choice).reason.startswith("auto; score=")


def test_an_alias_of_auto_does_not_exist_without_auto() -> None:
    with pytest.raises(NotFoundError):
        choose_tier("default", [EASY], None, TierChoice(FOUR, None, aliases={"default": "auto"}))


async def test_the_backend_starts_before_the_first_request_and_closes_after_the_last() -> None:
    backend = FourTiers()
    app = build_app(config(), backend)
    arriving: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    states: list[tuple[str, int, int]] = []

    async def receive() -> Message:
        return arriving.pop(0)

    async def send(message: Message) -> None:
        states.append((message["type"], backend.started, backend.stopped))

    await app({"type": "lifespan"}, receive, send)
    assert states == [("lifespan.startup.complete", 1, 0), ("lifespan.shutdown.complete", 1, 1)]
