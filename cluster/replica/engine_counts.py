"""``engine_counts``: what an engine has counted, as the overview of administrators wants it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.api import LATENCY_BOUNDS_S

if TYPE_CHECKING:
    from engine.api import EngineLoad
    from engine.metrics import EngineMetrics


def engine_counts(metrics: EngineMetrics, load: EngineLoad) -> dict[str, Any]:
    """Returns the fields of ``router.ports.engine_counts.EngineCounts`` as a dict of builtins, which any release can
    unpickle."""
    return {
        "waiting": {each.name.lower(): count for each, count in metrics.waiting.items()},
        "arrivals": {each.name.lower(): count.arrivals for each, count in load.classes.items()},
        "refused": {each.name.lower(): count.refusals for each, count in load.classes.items()},
        "ttft": {
            each.name.lower(): list(times.counted_by(LATENCY_BOUNDS_S)) for each, times in metrics.first_token_s.items()
        },
        "itl": list(metrics.between_tokens_s.counted_by(LATENCY_BOUNDS_S)),
        "prompt_tokens": metrics.stats.prompt_tokens,
        "cached_tokens": metrics.stats.cached_tokens,
        "generated_tokens": metrics.stats.generated_tokens,
    }
