"""The dashboard of tiers and engines."""

from __future__ import annotations

from k8s.monitoring import metric_names as m
from k8s.monitoring.boards.queries import OF_APP, TIER, gauge, mean, quantiles, rate, share
from k8s.monitoring.grafana import Dashboard, Panel, Query, Row, Unit, Variable


def engine() -> Dashboard:
    """A tier and its engines: where a request waits, and what a step does."""
    return Dashboard(
        "manta-engine",
        "Manta / Tiers and engines",
        [
            load_row(),
            kv_cache_row(),
            steps_row(),
            requests_row(),
        ],
        [Variable("application", m.BUILD_INFO), Variable("tier", m.BUILD_INFO)],
    )


def load_row() -> Row:
    """Returns the panels of what runs and what waits."""
    return Row(
        "Load",
        [
            Panel("Running sequences", [Query(gauge(m.RUNNING, "tier"), "{{tier}}")]),
            Panel("Waiting", [Query(gauge(m.WAITING, "tier, class"), "{{tier}} {{class}}")], stacked=True),
            Panel("Queue wait", quantiles(m.QUEUE_WAIT, "tier, class", 0.5, 0.95), Unit.SECONDS),
            Panel(
                "Oldest waiting request",
                [Query(f"max by (tier, class) ({m.OLDEST_WAIT}{TIER})", "{{tier}} {{class}}")],
                Unit.SECONDS,
                "Queue wait has those that were admitted; this one may never be.",
            ),
            Panel(
                "Expected wait",
                [Query(f"max by (tier) ({m.EXPECTED_WAIT}{TIER})", "{{tier}}")],
                Unit.SECONDS,
                "Of one more sequence, on the replica where it is longest.",
            ),
        ],
    )


def kv_cache_row() -> Row:
    """Returns the panels of KV blocks and the prefix cache."""
    used = f'sum by (tier) ({m.KV_BLOCKS}{{{OF_APP}, tier=~"$tier", state="%s"}})'
    return Row(
        "KV cache",
        [
            Panel(
                "Blocks in use",
                [
                    Query(f"{used % 'used'} / {used % 'total'}", "{{tier}} held"),
                    Query(f"{used % 'cached'} / {used % 'total'}", "{{tier}} cached"),
                ],
                Unit.SHARE,
                limit=0.95,
            ),
            Panel(
                "Prompt tokens from the prefix cache",
                [Query(share(m.CACHED_TOKENS, m.PROMPT_TOKENS, "tier"), "{{tier}}")],
                Unit.SHARE,
            ),
            Panel(
                "Prefix misses",
                [Query(rate(m.PREFIX_MISSES, "reason"), "{{reason}}")],
                Unit.PER_SECOND,
                stacked=True,
            ),
            Panel(
                "Preemptions and repairs",
                [
                    Query(rate(m.PREEMPTIONS, "tier"), "{{tier}} preempted"),
                    Query(rate(m.REPAIRS, "tier"), "{{tier}} repaired"),
                ],
                Unit.PER_SECOND,
            ),
        ],
    )


def steps_row() -> Row:
    """Returns the panels of the engine's steps."""
    return Row(
        "Steps",
        [
            Panel("Duration", quantiles(m.STEP, "tier", 0.5, 0.99), Unit.SECONDS),
            Panel(
                "Time by phase",
                [Query(rate(m.PHASE_SECONDS, "phase"), "{{phase}}")],
                Unit.SECONDS,
                "Seconds of each second, of all replicas.",
                stacked=True,
            ),
            Panel("Batch", [*quantiles(m.BATCH, "tier", 0.5), mean(m.BATCH, "tier")]),
            Panel(
                "Steps and tokens",
                [
                    Query(rate(m.STEPS, "tier"), "{{tier}} steps"),
                    Query(rate(m.GENERATED_TOKENS, "tier"), "{{tier}} tokens"),
                ],
                Unit.PER_SECOND,
            ),
        ],
    )


def requests_row() -> Row:
    """Returns the panels of the lengths and ends of requests."""
    return Row(
        "Requests",
        [
            Panel("Prompt length", quantiles(m.PROMPT_LENGTH, "tier", 0.5, 0.95)),
            Panel("Answer length", quantiles(m.ANSWER_LENGTH, "tier", 0.5, 0.95)),
            Panel(
                "Ends",
                [Query(rate(m.ENGINE_REQUESTS, "outcome"), "{{outcome}}")],
                Unit.PER_SECOND,
                stacked=True,
            ),
            Panel(
                "Draft tokens accepted",
                [Query(f"{rate(m.ACCEPTED_TOKENS, 'tier')} / {rate(m.DRAFT_TOKENS, 'tier')}", "{{tier}}")],
                Unit.SHARE,
            ),
        ],
    )
