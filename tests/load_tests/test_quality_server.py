"""Through HTTP the evaluation finds what it finds through the engine, and what fails on the way counts as wrong."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn

from engine.api import Conversation, Delta, EngineDeadError, GenerationRequest, Message
from engine.engine import Engine
from load_tests.quality.__main__ import main
from load_tests.quality.item import Item, read_held_out
from load_tests.quality.offline import ask_engine
from load_tests.quality.options import QualityOptions
from load_tests.quality.outcome import Outcome
from load_tests.quality.question import stratified
from load_tests.quality.server import UnreachableError, ask_server
from router.app_factory import build_app
from router.config.keys import KeyConfig
from router.config.router import RouterConfig
from router.ports.tier_backend import OnPlaced, OnUsage
from tests.router.backend import ReadyTiers

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "deployments" / "models"
HELD_OUT = MODELS / "training" / "heldout.jsonl"
KEY = "sk-test"
MAX_TOKENS = 8


@dataclass
class EngineBackend(ReadyTiers):
    """Three tiers that are one real engine, which answers one request after the other."""

    engine: Engine
    failing: set[str] = field(default_factory=set)  # questions whose replica dies
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def generate(
        self,
        tier: str,
        request: GenerationRequest,
        avoid: Collection[str] = (),
        on_usage: OnUsage | None = None,
        account: str = "",
        on_placed: OnPlaced | None = None,
    ) -> AsyncGenerator[Sequence[Delta], None]:
        assert isinstance(request.prompt, Conversation)
        if request.prompt.messages[-1].content in self.failing:
            raise EngineDeadError("gone")
        async with self.lock:
            [done] = await asyncio.to_thread(self.engine.generate, [request.prompt], request.sampling)
        yield [Delta(request.request_id, done.token_ids, done.text, done.finish_reason, done.usage)]


@pytest.fixture(name="backend", scope="module")
def _backend() -> EngineBackend:
    return EngineBackend(Engine.from_pretrained(MODELS / "fast"))


@pytest.fixture(name="url", scope="module")
def _url(backend: EngineBackend) -> Iterator[str]:
    """The real router over the backend, on a free port."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = build_app(RouterConfig(keys=(KeyConfig(key=KEY, tenant="acme", team="core"),)), backend)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(name="items", scope="module")
def _items() -> tuple[Item, ...]:
    """One of each family and level; those of some turns are among them."""
    items = stratified(read_held_out(HELD_OUT).items, 1)
    assert any(len(item.messages) > 1 for item in items)
    return items


def ask(items: Sequence[Item], url: str, *models: str) -> list[Outcome]:
    options = QualityOptions(url=url, key=KEY, models=models)
    return asyncio.run(ask_server(options, items, MAX_TOKENS, lambda: None))


def test_replies_and_tokens_are_those_of_the_engine(backend: EngineBackend, url: str, items: Sequence[Item]) -> None:
    served = ask(items, url, "fast")

    assert served == ask_engine(Engine.from_pretrained(MODELS / "fast"), "fast", items, MAX_TOKENS, lambda: None)


def test_auto_says_which_tier_answered(url: str, items: Sequence[Item]) -> None:
    plain = ask(items[:1], url, "auto", "frontier")

    assert plain[0].model == "auto"
    assert plain[0].reply.tier in {"fast", "balanced", "frontier"}
    assert plain[1].reply.tier == "frontier"


def test_a_request_that_fails_is_wrong_reported_and_not_tried_again(
    backend: EngineBackend, url: str, items: Sequence[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dying = Item("dying", "tables", 1, (Message("user", "the last question"),), "")
    backend.failing.add("the last question")
    rows = [
        {
            "id": item.id,
            "family": item.family,
            "level": item.level,
            "messages": [{"role": message.role, "content": message.content} for message in item.messages],
            "answer": item.answer,
        }
        for item in (*items[:2], dying)
    ]
    path, result = tmp_path / "set.jsonl", tmp_path / "run.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    where = [f"--url={url}", f"--key={KEY}", f"--set={path}", "--models=fast", f"--max-tokens={MAX_TOKENS}"]
    code = main([*where, "--no-progress", f"--json={result}", f"--write-baseline={tmp_path / 'quality.json'}"])

    out = capsys.readouterr().out
    assert code == 1
    assert "fast: FAILED 1 requests, which count as wrong" in out
    assert "InternalServerError 5" in out
    assert "no baseline written" in out
    assert not (tmp_path / "quality.json").exists()
    rows = json.loads(result.read_text())["sets"]["tasks"]["rows"]
    assert [row["problem"] is None for row in rows] == [True, True, False]


def test_a_server_that_is_not_there_refuses_the_key_or_lacks_a_model_cannot_be_asked(
    url: str, items: Sequence[Item]
) -> None:
    with pytest.raises(UnreachableError, match="APIConnectionError"):
        ask(items, "http://127.0.0.1:1", "fast")
    with pytest.raises(UnreachableError, match="but not colossal"):
        ask(items, url, "colossal")
    with pytest.raises(UnreachableError, match="401"):
        asyncio.run(ask_server(QualityOptions(url=url, key="sk-no", models=("fast",)), items, MAX_TOKENS, lambda: None))


def test_an_unreachable_server_ends_the_command_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--url=http://127.0.0.1:1", f"--set={HELD_OUT}", "--no-progress"])

    assert "http://127.0.0.1:1/v1/ cannot be asked" in capsys.readouterr().err
