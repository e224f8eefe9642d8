"""``series_bounds``: how many series Manta's metrics can have, computed from the settings. Pure.

Each label has a fixed set of values, whatever clients, policies and other processes send. A process can therefore have
no more series than the product of these sets, and most have far fewer: a series begins with its first value. Ray adds
labels of the process and its node, so that each process has series of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import NamedTuple

from cluster.autoscaling.decision import Reason as ScalingReason
from cluster.config import ROUTER, MantaConfig, TierConfig
from cluster.latency_objectives import all_objectives, with_objectives
from cluster.telemetry.cache_metrics import JUDGES, MAX_REASONS, STATUSES
from cluster.telemetry.engine_metric_definitions import COUNTERS, KERNELS, MISSES, PHASES
from cluster.telemetry.prediction_metrics import BOUNDS as ERROR_BOUNDS
from cluster.telemetry.stage_metrics import STAGES_OF, stage_bounds
from cluster.telemetry.usage_metrics import (
    ADMISSIONS,
    CLASSES,
    DECISIONS,
    FAILOVERS,
    OUTCOMES,
    REASONS,
    SCOPES,
    SPECULATIONS,
)
from cluster.telemetry.verdict_labels import CATEGORIES_OF, SINGLE
from engine.api import Priority
from engine.metrics import BATCHES, LENGTHS, SECONDS
from router.embedding_request import EMBEDDINGS
from router.guard.text_moderation import TIER as MODERATION
from router.ports.limit_store import LimitName
from router.retrieval.retrieval_usage import RETRIEVAL
from safety.api import Action, Stage

LEDGER_TIERS = (EMBEDDINGS, MODERATION, RETRIEVAL)
"""What the label ``tier`` of the usage has beside the tiers of the config."""
BREAKERS = ("classifier", "embedder", "semantic index")
STATE_BREAKERS = ("reservations", "settlements", "key lookups", "background", "reports")
"""The values of ``dependency``: services, and kinds of calls to Redis."""
ENGINE_OUTCOMES = 5  # finished, aborted, failed, expired, refused
KV_STATES = 3  # total, used, cached
JOURNALS, LOST_TEXTS = 2, 3

Series = Mapping[str, int]
"""The most series that one process has, by metric, as Prometheus names it without ``ray_`` and ``_total``."""


class Processes(NamedTuple):
    """The most processes of one kind, and the most series of one of them."""

    most: int
    series: Series


@dataclass(frozen=True, slots=True)
class SeriesBounds:
    """The bounds of a service. ``processes`` are by deployment; ``Autoscaler`` is what runs in Serve's controller."""

    processes: Mapping[str, Processes]

    @property
    def total(self) -> int:
        """The most series of all processes that run at once."""
        return sum(each.most * sum(each.series.values()) for each in self.processes.values())

    def of_process(self, metric: str) -> int:
        """Returns the most series that one process has of a metric; 0: no process has it."""
        return max((each.series.get(metric, 0) for each in self.processes.values()), default=0)


def series_bounds(config: MantaConfig) -> SeriesBounds:
    """Returns the bounds of the service of ``config``. Autoscaled deployments count with their most replicas."""
    scaling = config.autoscaling
    tiers = {} if scaling is None else scaling.tiers
    followers = {} if scaling is None else scaling.followers
    found = {ROUTER: Processes(config.ingress.replicas, router_series(config))}
    for tier in config.tiers:
        most = tiers[tier.name].max + tiers[tier.name].warm if tier.name in tiers else tier.replicas
        found[tier.name] = Processes(most, replica_series(with_objectives(config, tier)))
    found |= _small_models(config)
    found |= {name: each._replace(most=followers[name].max) for name, each in found.items() if name in followers}
    if scaling is not None:
        found["Autoscaler"] = Processes(1, autoscaler_series(len(tiers) + len(followers)))
    return SeriesBounds(found)


def _small_models(config: MantaConfig) -> dict[str, Processes]:
    """Returns the deployments of small models, whose calls are traced, or the one that has them all."""
    services = {
        "SafetyClassifier": config.safety.classifier,
        "Embedder": config.embedder,
        "SemanticCache": config.cache,
    }
    found = {name: Processes(each.replicas, TRACING) for name, each in services.items() if each is not None}
    if config.small_models is None or not found:
        return found
    together = {name: len(found) * count for name, count in TRACING.items()}
    return {"SmallModels": Processes(config.small_models.replicas, together)}


def router_series(config: MantaConfig) -> Series:
    """Returns the most series of a router."""
    tenants, tiers = config.telemetry.metrics.max_tenants + 1, len(config.tiers)
    return {
        **_usage_series(tenants, tiers + len(LEDGER_TIERS)),
        **_tier_series(tiers),
        **_cache_series(tenants),
        **_histogram("manta_stage_seconds", _stages(), len(stage_bounds(all_objectives(config)))),
        "manta_safety_verdicts": len(Stage) * len(Action) * _findings(),
        "manta_lost_records": JOURNALS,
        "manta_unreadable_policies": 1,
        "manta_lost_texts": LOST_TEXTS,
        "manta_breaker_open": len(BREAKERS) + len(STATE_BREAKERS),
        "manta_journal_bytes": JOURNALS,
        "manta_router_build_info": 1,
        **TRACING,
    }


TRACING: Series = {"manta_untraced_requests": 1, "manta_trace_faults": 1}
"""Those of each process that traces."""


def _usage_series(tenants: int, tiers: int) -> Series:
    """Those with a tenant, which are most. ``tiers`` are those of the ledger."""
    limits = tenants * _or_other(SCOPES) * len(LimitName)
    return {
        "manta_requests": tenants * tiers * _or_other(OUTCOMES),
        "manta_tokens": tenants * tiers * 3,  # input, cached_input, output
        "manta_cost": tenants * tiers,
        "manta_limit_warnings": limits,
        "manta_limit_refusals": limits,
        "manta_safety_decisions": tenants * _or_other(DECISIONS),
    }


def _tier_series(tiers: int) -> Series:
    classes = tiers * _or_other(CLASSES)
    gauges = ("ttft_seconds", "waiting_requests", "waiting_tokens", "pressure")
    return {
        "manta_failovers": tiers * _or_other(FAILOVERS),
        "manta_speculations": tiers * _or_other(SPECULATIONS),
        "manta_admissions": classes * _or_other(ADMISSIONS) * _or_other(REASONS),
        **{f"manta_admission_{each}": classes for each in gauges},
        **_histogram("manta_ttft_error", tiers * 2, len(ERROR_BOUNDS)),  # late, early
    }


def _cache_series(tenants: int) -> Series:
    return {
        "manta_cache_requests": tenants * _or_other(STATUSES),
        "manta_cache_reasons": MAX_REASONS + _or_other(STATUSES),
        "manta_cache_stored": tenants,
        "manta_cache_unstored": MAX_REASONS + 1,
        "manta_cache_poisoned": 1,
        "manta_cache_judged": tenants * _or_other(JUDGES) * 2,
    }


def _findings() -> int:
    """Returns the pairs of check and category: of each check its categories, ``unscanned``, and ``other`` where it has
    several; the check ``other`` is one more."""
    several = sum(_or_other(each) + 1 for each in CATEGORIES_OF.values())
    return several + 2 * len(SINGLE) + 2


def _stages() -> int:
    return sum(_or_other(stages) for stages in STAGES_OF.values())


def replica_series(tier: TierConfig) -> Series:
    """Returns the most series of a replica of ``tier``, which has its objectives (``with_objectives``)."""
    classes, latencies = len(Priority), len({*SECONDS, *tier.latency_objectives_s})
    plain = {name: 1 for name, metric in COUNTERS.items() if not metric.labels}
    return {
        **plain,
        **_histogram("manta_ttft_seconds", classes, latencies),
        **_histogram("manta_queue_wait_seconds", classes, len(SECONDS)),
        **_histogram("manta_itl_seconds", 1, latencies),
        **_histogram("manta_step_seconds", 1, len(SECONDS)),
        **_histogram("manta_batch_sequences", 1, len(BATCHES)),
        **_histogram("manta_prompt_length_tokens", 1, len(LENGTHS)),
        **_histogram("manta_answer_length_tokens", 1, len(LENGTHS)),
        "manta_engine_requests": ENGINE_OUTCOMES,
        "manta_engine_prefix_misses": _or_other(MISSES),
        "manta_engine_phase_seconds": _or_other(PHASES),
        "manta_engine_running": 1,
        "manta_engine_waiting": classes,
        "manta_engine_oldest_wait_seconds": classes,
        "manta_engine_expected_wait_seconds": 1,
        "manta_kv_blocks": KV_STATES,
        "manta_build_info": _or_other(KERNELS),
        "manta_replica_start_failures": 1,
        **TRACING,
    }


def autoscaler_series(deployments: int) -> Series:
    """Returns the most series of the autoscaler, of a number of tiers and followers together."""
    gauges = ("target_replicas", "ready_replicas", "needed_replicas", "cold_start_s", "waiting_requests", "budget_burn")
    named = {f"manta_autoscaling_{each}": deployments for each in gauges}
    reasons = deployments * len(ScalingReason)
    return {**named, "manta_autoscaling_decisions": reasons, "manta_autoscaling_why_not": 2 * reasons}


def _histogram(name: str, series: int, bounds: int) -> Series:
    """Returns the three counters of a histogram with ``bounds`` upper bounds, and one bucket above all of them."""
    return {f"{name}_bucket": series * (bounds + 1), f"{name}_sum": series, f"{name}_count": series}


def _or_other(known: Sized) -> int:
    """Returns the number of values of a label: those that are known, and ``other``."""
    return len(known) + 1


def excess(bounds: SeriesBounds, seen: Mapping[tuple[str, str], int]) -> Iterator[str]:
    """Yields in words each metric of which a process has more series than it may. ``seen`` has the series by metric
    and process, with the names of Prometheus."""
    for (name, process), count in seen.items():
        metric = name.removeprefix("ray_").removesuffix("_total")
        if count > (most := bounds.of_process(metric)):
            yield f"{name}: {count} of process {process}, {most} at most"
