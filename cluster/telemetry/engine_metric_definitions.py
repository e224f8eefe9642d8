"""What a replica exports of its engine: names, labels and descriptions, and the numbers taken from ``EngineMetrics``.

Prometheus sees the names with the prefix ``ray_`` and, for counters, the suffix ``_total``. Each series has the labels
``application`` and ``tier``. A histogram is three counters as Prometheus counts them: ``NAME_bucket`` with the label
``le``, ``NAME_sum`` and ``NAME_count``. Ray's own histogram takes one value at a time, while the engine has counted
them in buckets already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from cluster.telemetry.bounded_label import bounded
from engine.api import Priority

if TYPE_CHECKING:
    from engine.metrics import EngineMetrics, Histogram

KERNELS = frozenset({"torch", "triton", "compiled", "compiled-amx", "compiled-amx-emulated"})
"""The values of the label ``kernels`` (``StepRunner.kernels``). Any other is counted as ``other``."""
MISSES = frozenset({"short", "evicted", "other_salt", "new"})
"""The values of the label ``reason`` of prefix misses (``engine.kv.prefix.Miss``)."""
PHASES = frozenset({"schedule", "draft", "forward", "sample", "emit"})
"""The values of the label ``phase`` (``engine.metrics.Phase``)."""
INFINITY = "+Inf"


class Series(NamedTuple):
    """One series: the name of its metric, and the values of its labels without the tier, in the order of ``Metric``."""

    name: str
    labels: tuple[str, ...] = ()


class Metric(NamedTuple):
    """A metric's description and the names of its labels beside ``tier``."""

    description: str
    labels: tuple[str, ...] = ()


_HISTOGRAMS = {
    "manta_ttft_seconds": Metric("Time from a request's arrival at the engine to its first token.", ("class",)),
    "manta_queue_wait_seconds": Metric("Time from a request's arrival at the engine to its admission.", ("class",)),
    "manta_itl_seconds": Metric("Time between tokens of a sequence."),
    "manta_step_seconds": Metric("Duration of a step with a forward pass."),
    "manta_batch_sequences": Metric("Sequences of a step."),
    "manta_prompt_length_tokens": Metric("Tokens of an admitted prompt."),
    "manta_answer_length_tokens": Metric("Tokens of an answer that has ended."),
}


def _counters() -> dict[str, Metric]:
    counters = {
        "manta_engine_steps": Metric("Steps with a forward pass."),
        "manta_engine_prompt_tokens": Metric("Prompt tokens computed, without those from the prefix cache."),
        "manta_engine_cached_tokens": Metric("Prompt tokens taken from the prefix cache."),
        "manta_engine_generated_tokens": Metric("Tokens generated."),
        "manta_engine_requests": Metric("Requests that the engine has ended or refused.", ("outcome",)),
        "manta_engine_preemptions": Metric("Preemptions of sequences."),
        "manta_engine_repairs": Metric("Times that the KV cache was replaced as inconsistent."),
        "manta_engine_draft_tokens": Metric("Draft tokens verified."),
        "manta_engine_accepted_tokens": Metric("Draft tokens accepted."),
        "manta_engine_prefix_misses": Metric("Prompts whose prefix was not fully cached.", ("reason",)),
        "manta_engine_phase_seconds": Metric("Time of the phases of all steps.", ("phase",)),
    }
    for name, (description, labels) in _HISTOGRAMS.items():
        counters[f"{name}_bucket"] = Metric(f"{description} Values up to le.", (*labels, "le"))
        counters[f"{name}_sum"] = Metric(f"{description} Their sum.", labels)
        counters[f"{name}_count"] = Metric(f"{description} Their number.", labels)
    return counters


COUNTERS: Mapping[str, Metric] = _counters()
GAUGES: Mapping[str, Metric] = {
    "manta_engine_running": Metric("Sequences that hold KV blocks."),
    "manta_engine_waiting": Metric("Requests in the engine's waiting queue.", ("class",)),
    "manta_engine_oldest_wait_seconds": Metric("Wait of the oldest request in the waiting queue.", ("class",)),
    "manta_engine_expected_wait_seconds": Metric("Estimated wait of one more sequence."),
    "manta_kv_blocks": Metric("KV blocks of the fullest pool: total, used, cached (may be evicted).", ("state",)),
    "manta_build_info": Metric("Always 1: what the replica runs.", ("kernels", "model_version", "release")),
}


def totals(metrics: EngineMetrics) -> Iterator[tuple[Series, float]]:
    """Yields all counters of COUNTERS, since the start of the engine. Series that are 0 are among them."""
    stats = metrics.stats
    yield Series("manta_engine_steps"), stats.steps
    yield Series("manta_engine_prompt_tokens"), stats.prompt_tokens
    yield Series("manta_engine_cached_tokens"), stats.cached_tokens
    yield Series("manta_engine_generated_tokens"), stats.generated_tokens
    yield Series("manta_engine_preemptions"), stats.preemptions
    yield Series("manta_engine_repairs"), metrics.repairs
    yield Series("manta_engine_draft_tokens"), stats.guessed_tokens
    yield Series("manta_engine_accepted_tokens"), stats.right_guesses
    outcomes = {
        "finished": stats.finished,
        "aborted": stats.aborted,
        "failed": stats.failed,
        "expired": stats.expired,
        "refused": metrics.refused,
    }
    for outcome, count in outcomes.items():
        yield Series("manta_engine_requests", (outcome,)), count
    for miss, count in metrics.misses.items():
        yield Series("manta_engine_prefix_misses", (bounded(miss.value, MISSES),)), count
    for phase, histogram in metrics.phase_s.items():
        yield Series("manta_engine_phase_seconds", (bounded(phase.value, PHASES),)), histogram.total
    for priority in Priority:
        name = priority.name.lower()
        yield from _histogram("manta_ttft_seconds", metrics.first_token_s[priority], name)
        yield from _histogram("manta_queue_wait_seconds", metrics.queue_s[priority], name)
    yield from _histogram("manta_itl_seconds", metrics.between_tokens_s)
    yield from _histogram("manta_step_seconds", metrics.step_s)
    yield from _histogram("manta_batch_sequences", metrics.batch_sequences)
    yield from _histogram("manta_prompt_length_tokens", metrics.prompt_length)
    yield from _histogram("manta_answer_length_tokens", metrics.answer_length)


def gauges(metrics: EngineMetrics, model_version: str, release: str) -> Iterator[tuple[Series, float]]:
    """Yields the current values of GAUGES. ``model_version`` and ``release`` are labels of the build info."""
    stats = metrics.stats
    yield Series("manta_engine_running"), stats.running
    for priority, count in metrics.waiting.items():
        yield Series("manta_engine_waiting", (priority.name.lower(),)), count
    for priority, seconds in metrics.oldest_wait_s.items():
        yield Series("manta_engine_oldest_wait_seconds", (priority.name.lower(),)), seconds
    yield Series("manta_engine_expected_wait_seconds"), stats.wait_s
    blocks = {"total": stats.blocks_total, "used": stats.blocks_used, "cached": stats.blocks_cached}
    for state, count in blocks.items():
        yield Series("manta_kv_blocks", (state,)), count
    for kernels in metrics.kernels:
        yield Series("manta_build_info", (bounded(kernels, KERNELS), model_version, release)), 1


def _histogram(name: str, histogram: Histogram, *labels: str) -> Iterator[tuple[Series, float]]:
    """Yields the counters of a histogram; each bucket has the counts of those below it, too."""
    bounds = (*(str(float(bound)) for bound in histogram.bounds), INFINITY)
    for bound, count in zip(bounds, accumulate(histogram.counts), strict=True):
        yield Series(f"{name}_bucket", (*labels, bound)), count
    yield Series(f"{name}_sum", labels), histogram.total
    yield Series(f"{name}_count", labels), histogram.count
