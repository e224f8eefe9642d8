"""``with_objectives``: gives each tier the objectives at which its replicas count latencies. Pure.

``ttft_objectives`` are those by which its replicas count requests as late. ``all_objectives`` are those at which
routers count the stages of requests, which have no tier.

What share of first tokens comes within an objective can be counted exactly where a bucket of the histogram ends at it.
"""

from __future__ import annotations

from cluster.autoscaling.replica_report import WAITED_FOR
from cluster.config import MantaConfig, TierConfig
from engine.api import LATENCY_BOUNDS_S, Priority


def with_objectives(config: MantaConfig, tier: TierConfig) -> TierConfig:
    """Returns ``tier`` with the objectives of its autoscaling and of the admission in ``latency_objectives_s``, but for
    those at which a usual bucket ends. The admission's are those of a short prompt."""
    found = set(tier.latency_objectives_s)
    scaled = None if config.autoscaling is None else config.autoscaling.tiers.get(tier.name)
    for slo in () if scaled is None else scaled.slos.values():
        found |= {slo.ttft_p99_s, slo.itl_p99_s}
    if config.router.admission.enabled:
        terms = (config.router.admission.terms(tier.name, priority) for priority in Priority)
        found |= {each.ttft_s for each in terms if each.ttft_s is not None}
    return tier.model_copy(update={"latency_objectives_s": tuple(sorted(found.difference(LATENCY_BOUNDS_S)))})


def ttft_objectives(config: MantaConfig, tier: TierConfig) -> dict[str, list[float]]:
    """Returns the objectives of the tier's autoscaling for the first token, by the names of the classes that users wait
    for, as ``TierReplica.reconfigure`` takes them; {} without autoscaling."""
    scaled = None if config.autoscaling is None else config.autoscaling.tiers.get(tier.name)
    if scaled is None:
        return {}
    slos = {priority: scaled.slo(priority) for priority in WAITED_FOR}
    return {priority.name.lower(): [slo.ttft_p99_s, slo.ttft_s_per_1k_tokens] for priority, slo in slos.items() if slo}


def all_objectives(config: MantaConfig) -> tuple[float, ...]:
    """Returns the objectives of all tiers at which no usual bucket ends, ascending."""
    return tuple(sorted({each for tier in config.tiers for each in with_objectives(config, tier).latency_objectives_s}))
