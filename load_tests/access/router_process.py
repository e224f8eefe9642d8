"""``python -m load_tests.access.router_process``: a router and the shared state in one process, without Ray."""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn

from cluster.config import StateConfig
from cluster.state.redis_entry_store import RedisEntryStore
from cluster.state.redis_store import RedisStore
from engine.api import FinishReason
from load_tests.access.backend import SteadyBackend
from router.app_factory import build_app
from router.config.router import RouterConfig
from router.ports.tier_backend import TierBackend
from router.router_ports import CacheParts, RouterPorts


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.access.router_process", description=(__doc__ or "").partition(": ")[2]
    )
    parser.add_argument("--port", type=int, required=True, help="port of 127.0.0.1")
    parser.add_argument("--config", type=Path, required=True, help="the router's settings as JSON")
    parser.add_argument("--state", type=Path, help="the settings of the shared state as JSON; default: in memory")
    parser.add_argument("--step-ms", type=float, default=10.0, help="a token's time (default: %(default)s)")
    parser.add_argument(
        "--model", help="a model's directory, whose engine answers; default: a model that costs nothing"
    )
    parser.add_argument("--stop", action="store_true", help="answers end by themselves, and may be stored")
    options = parser.parse_args()
    store = cache = None
    if options.state is not None:
        state = StateConfig.model_validate_json(options.state.read_text(encoding="utf-8"))
        url = state.read_url()
        assert url is not None, "the settings of the shared state name a Redis"
        store, cache = RedisStore(state, url), CacheParts(RedisEntryStore(state, url))
    config = RouterConfig.model_validate_json(options.config.read_text(encoding="utf-8"))
    reason = FinishReason.STOP if options.stop else FinishReason.LENGTH
    backend: TierBackend = SteadyBackend(options.step_ms / 1000, reason)
    if options.model is not None:
        from engine import Engine  # imports torch, which takes seconds
        from load_tests.engine_backend import EngineBackend

        backend = EngineBackend(Engine.from_pretrained(options.model, dtype="float32", threads=1))
    app = build_app(config, backend, RouterPorts(store=store, cache=cache))
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
