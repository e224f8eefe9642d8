"""The dashboards: the service as users see it, tiers and engines, scaling and rollout, tenants, safety and cache."""

from __future__ import annotations

from collections.abc import Sequence

from k8s.monitoring import metric_names as m
from k8s.monitoring.grafana import Dashboard, Panel, Query, Row, Unit, Variable
from k8s.monitoring.metric_names import bucket_of, count_of, sum_of
from k8s.monitoring.objectives import objectives

_OF = 'application=~"$application"'
APPLICATION, TIER, TENANT = f"{{{_OF}}}", f'{{{_OF}, tier=~"$tier"}}', f'{{{_OF}, tenant=~"$tenant"}}'
STEP_OF_RATES = "$__rate_interval"


def rate(counter: str, by: str, matchers: str = TIER) -> str:
    """Returns the rate of a counter per second, by labels."""
    return f"sum by ({by}) (rate({counter}{matchers}[{STEP_OF_RATES}]))"


def gauge(name: str, by: str, matchers: str = TIER) -> str:
    """Returns the sum of a gauge over all replicas, by labels."""
    return f"sum by ({by}) ({name}{matchers})"


def share(part: str, whole: str, by: str, matchers: str = TIER) -> str:
    """Returns the share that one counter has in the sum of it and another."""
    return f"{rate(part, by, matchers)} / ({rate(part, by, matchers)} + {rate(whole, by, matchers)})"


def quantiles(histogram: str, by: str, *shares: float) -> list[Query]:
    """Returns quantiles of a histogram, by labels beside the bound."""
    names = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    buckets = f"sum by ({by}, le) (rate({bucket_of(histogram)}{TIER}[{STEP_OF_RATES}]))"
    return [Query(f"histogram_quantile({each}, {buckets})", f"{names} p{100 * each:g}") for each in shares]


def mean(histogram: str, by: str) -> Query:
    """Returns the mean of a histogram."""
    return Query(f"{rate(sum_of(histogram), by)} / {rate(count_of(histogram), by)}", f"{{{{{by}}}}} mean")


def service() -> Dashboard:
    """What users see, and what is about to reach them."""
    budgets = [
        Panel(
            f"Bad events: {objective.name}",
            [Query(f"{objective.ratio(window)}{TIER}", f"{{{{tier}}}} {window}") for window in ("1h", "6h", "3d")],
            Unit.SHARE,
            objective.promise,
            limit=round(1 - objective.target, 6),
        )
        for objective in objectives()
    ]
    return Dashboard(
        "manta-service",
        "Manta / Service",
        [
            Row("Objectives", budgets),
            request_row(),
            latency_row(),
            admission_row(),
            fault_row(),
        ],
        [Variable("application", m.BUILD_INFO), Variable("tier", m.BUILD_INFO)],
    )


def request_row() -> Row:
    """Requests and tokens."""
    return Row(
        "Requests",
        [
            Panel(
                "Requests by outcome",
                [Query(rate(m.REQUESTS, "outcome"), "{{outcome}}")],
                Unit.PER_SECOND,
                "refused: for what they ask; failed: by a fault of the service.",
                stacked=True,
            ),
            Panel("Requests by tier", [Query(rate(m.REQUESTS, "tier"), "{{tier}}")], Unit.PER_SECOND),
            Panel("Tokens", [Query(rate(m.TOKENS, "tier, direction"), "{{tier}} {{direction}}")], Unit.PER_SECOND),
        ],
    )


def latency_row() -> Row:
    """What users wait for, and how well it is predicted."""
    return Row(
        "Latency",
        [
            Panel(
                "Time to first token",
                quantiles(m.TTFT, "tier, class", 0.5, 0.99),
                Unit.SECONDS,
            ),
            Panel("Between tokens", quantiles(m.ITL, "tier", 0.5, 0.99), Unit.SECONDS),
            Panel(
                "Error of predicted times to first token",
                quantiles(m.TTFT_ERROR, "tier, direction", 0.5, 0.9),
                Unit.SHARE,
                "Of the measured one. Replicas are chosen by the prediction.",
            ),
        ],
    )


def admission_row() -> Row:
    """What is admitted, what is refused, and why."""
    return Row(
        "Admission",
        [
            Panel(
                "Decisions",
                [Query(rate(m.ADMISSIONS, "tier, class, outcome"), "{{tier}} {{class}} {{outcome}}")],
                Unit.PER_SECOND,
            ),
            Panel(
                "Why not admitted",
                [Query(rate(m.ADMISSIONS, "tier, reason"), "{{tier}} {{reason}}")],
                Unit.PER_SECOND,
                "none: admitted. docs/operations.md explains the others.",
            ),
            Panel(
                "Admitted, without a first token",
                [
                    Query(gauge(m.ADMISSION_WAITING, "tier, class"), "{{tier}} {{class}} requests"),
                    Query(gauge(m.ADMISSION_TOKENS, "tier, class"), "{{tier}} {{class}} tokens"),
                ],
            ),
            Panel(
                "Predicted time to the first token",
                [Query(f"max by (tier, class) ({m.ADMISSION_TTFT}{TIER})", "{{tier}} {{class}}")],
                Unit.SECONDS,
                "Of the last request, by the router that predicts most.",
            ),
            Panel(
                "Pressure",
                [Query(f"max by (tier, class) ({m.ADMISSION_PRESSURE}{TIER})", "{{tier}} {{class}}")],
                Unit.SHARE,
                "How near the higher classes are to their objectives. The queues of lower ones shrink with it.",
            ),
        ],
    )


def fault_row() -> Row:
    """What the service does without, or has lost."""
    return Row(
        "What fails",
        [
            Panel("Failovers", [Query(rate(m.FAILOVERS, "tier, kind"), "{{tier}} {{kind}}")], Unit.PER_SECOND),
            Panel(
                "Open circuit breakers",
                [Query(gauge(m.BREAKER_OPEN, "dependency", APPLICATION), "{{dependency}}")],
                description="Routers that do without it.",
            ),
            Panel("Journals", [Query(gauge(m.JOURNAL_BYTES, "log", APPLICATION), "{{log}}")], Unit.BYTES),
            Panel("Lost records", [Query(gauge(m.LOST_RECORDS, "log", APPLICATION), "{{log}}")]),
            Panel(
                "Requests without a trace",
                [
                    Query(rate(m.UNTRACED, "role", APPLICATION), "{{role}}"),
                    Query(rate(m.TRACE_FAULTS, "role", APPLICATION), "{{role}}, by a fault"),
                ],
                Unit.PER_SECOND,
                "telemetry.max_pending others were being traced; or a fault of tracing, which the log has.",
            ),
        ],
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
    used = f'sum by (tier) ({m.KV_BLOCKS}{{{_OF}, tier=~"$tier", state="%s"}})'
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


def scaling_row() -> Row:
    """Returns the panels of the autoscaler."""
    return Row(
        "Scaling",
        [
            Panel(
                "Replicas wanted and had",
                [
                    Query(f"max by (tier) ({m.TARGET_REPLICAS}{TIER})", "{{tier}} target"),
                    Query(f"max by (tier) ({m.NEEDED_REPLICAS}{TIER})", "{{tier}} needed"),
                    Query(f"max by (tier) ({m.READY_REPLICAS}{TIER})", "{{tier}} ready"),
                ],
            ),
            Panel("Decisions", [Query(rate(m.SCALING_DECISIONS, "tier, reason"), "{{tier}} {{reason}}")]),
            Panel("Waiting for a first replica", [Query(f"max by (tier) ({m.WAITING_FOR_START}{TIER})", "{{tier}}")]),
            Panel("Failed starts", [Query(gauge(m.START_FAILURES, "tier"), "{{tier}}")]),
            Panel("Cold start", [Query(f"max by (tier) ({m.COLD_START}{TIER})", "{{tier}}")], Unit.SECONDS),
        ],
    )


def replicas_row() -> Row:
    """Returns the panel of the replicas that run, with their kernels and versions."""
    return Row(
        "What runs",
        [
            Panel(
                "Replicas",
                [
                    Query(
                        f"count by (tier, kernels, model_version, release) ({m.BUILD_INFO}{TIER})",
                        "{{tier}} {{kernels}} {{model_version}} {{release}}",
                    )
                ],
                stacked=True,
            )
        ],
    )


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


def scaling() -> Dashboard:
    """How many replicas there are and why, and while a release is rolled out, which runs where and what fails."""
    return Dashboard(
        "manta-scaling",
        "Manta / Scaling and rollout",
        [
            scaling_row(),
            replicas_row(),
            rollout_row(),
        ],
        [Variable("application", m.BUILD_INFO), Variable("tier", m.BUILD_INFO)],
    )


def rollout_row() -> Row:
    """Returns the panels that say whether a rollout hurts."""
    failed = f'{{{_OF}, tier=~"$tier", outcome="failed"}}'
    return Row(
        "While it is rolled out",
        [
            Panel(
                "Failed requests",
                [Query(rate(m.REQUESTS, "tier", failed), "{{tier}}")],
                Unit.PER_SECOND,
                "By a fault of the service. If they rise with the new release, roll back.",
            ),
            Panel(
                "Requests that went on elsewhere",
                [Query(rate(m.FAILOVERS, "tier, kind"), "{{tier}} {{kind}}")],
                Unit.PER_SECOND,
                "moved: planned, as replicas of the former release end.",
            ),
            Panel("Time to first token", quantiles(m.TTFT, "tier, class", 0.99), Unit.SECONDS),
        ],
    )


def tenants() -> Dashboard:
    """Who uses what, what it costs, and whom limits hold back. The ledger is exact; this is for graphs."""

    def top(expression: str) -> list[Query]:
        return [Query(f"topk(20, {expression})", "{{tenant}}")]

    return Dashboard(
        "manta-tenants",
        "Manta / Tenants and cost",
        [
            Row(
                "Use",
                [
                    Panel("Requests", top(rate(m.REQUESTS, "tenant", TENANT)), Unit.PER_SECOND),
                    Panel("Tokens", top(rate(m.TOKENS, "tenant", TENANT)), Unit.PER_SECOND),
                    Panel(
                        "Failed requests",
                        top(rate(m.REQUESTS, "tenant", f'{{{_OF}, tenant=~"$tenant", outcome="failed"}}')),
                        Unit.PER_SECOND,
                    ),
                ],
            ),
            Row(
                "Cost",
                [
                    Panel(
                        "Cost of an hour, by tenant",
                        top(f"sum by (tenant) (increase({m.COST}{TENANT}[1h]))"),
                        description="In the currency of router.prices.",
                    ),
                    Panel(
                        "Cost of an hour, by tier",
                        [Query(f"sum by (tier) (increase({m.COST}{TENANT}[1h]))", "{{tier}}")],
                        stacked=True,
                    ),
                ],
            ),
            Row(
                "Limits",
                [
                    Panel(
                        "Refusals",
                        [Query(f"topk(20, {rate(m.LIMIT_REFUSALS, 'tenant, limit', TENANT)})", "{{tenant}} {{limit}}")],
                        Unit.PER_SECOND,
                    ),
                    Panel(
                        "Nearly used up",
                        [Query(f"topk(20, {rate(m.LIMIT_WARNINGS, 'tenant, limit', TENANT)})", "{{tenant}} {{limit}}")],
                        Unit.PER_SECOND,
                    ),
                ],
            ),
        ],
        [Variable("application", m.BUILD_INFO), Variable("tenant", m.REQUESTS)],
    )


def safety_row() -> Row:
    """Returns the panels of what the guard decides."""
    return Row(
        "Safety",
        [
            Panel(
                "Decisions",
                [Query(rate(m.SAFETY_DECISIONS, "decision", TENANT), "{{decision}}")],
                Unit.PER_SECOND,
                "unscanned: a check did not run.",
                stacked=True,
            ),
            Panel(
                "Blocked, by tenant",
                [
                    Query(
                        f"topk(20, {rate(m.SAFETY_DECISIONS, 'tenant', _BLOCKED)})",
                        "{{tenant}}",
                    )
                ],
                Unit.PER_SECOND,
            ),
            Panel(
                "Policies that cannot be read",
                [Query(f"sum(rate({m.UNREADABLE_POLICIES}{APPLICATION}[{STEP_OF_RATES}]))", "readings")],
                Unit.PER_SECOND,
            ),
        ],
    )


def cache_row() -> Row:
    """Returns the panels of what the answer cache gives again."""
    hits = f'sum(rate({m.CACHE_REQUESTS}{{{_OF}, tenant=~"$tenant", status=~"exact|semantic"}}[{STEP_OF_RATES}]))'
    asked = f'sum(rate({m.CACHE_REQUESTS}{{{_OF}, tenant=~"$tenant", status!="bypass"}}[{STEP_OF_RATES}]))'
    return Row(
        "Answer cache",
        [
            Panel("Hits", [Query(f"{hits} / {asked}", "of the requests that may be answered so")], Unit.SHARE),
            Panel(
                "Requests",
                [Query(rate(m.CACHE_REQUESTS, "status", TENANT), "{{status}}")],
                Unit.PER_SECOND,
                stacked=True,
            ),
            Panel(
                "Why not",
                [
                    Query(
                        rate(m.CACHE_REQUESTS, "reason", f'{{{_OF}, tenant=~"$tenant", status=~"miss|bypass"}}'),
                        "{{reason}}",
                    )
                ],
                Unit.PER_SECOND,
            ),
        ],
    )


def stored_answers_row() -> Row:
    """Returns the panels of what the answer cache stores, and of hits that were wrong."""
    wrong = f'sum by (judge) (rate({m.CACHE_JUDGED}{{{_OF}, tenant=~"$tenant", wrong="true"}}[1h]))'
    judged = f"sum by (judge) (rate({m.CACHE_JUDGED}{TENANT}[1h]))"
    return Row(
        "Stored answers",
        [
            Panel("Stored", [Query(rate(m.CACHE_STORED, "tenant", TENANT), "{{tenant}}")], Unit.PER_SECOND),
            Panel("Not stored", [Query(rate(m.CACHE_UNSTORED, "reason", TENANT), "{{reason}}")], Unit.PER_SECOND),
            Panel(
                "Wrong hits",
                [Query(f"{wrong} / {judged}", "{{judge}}")],
                Unit.SHARE,
                "Of those that were judged. The bound is router.cache.max_false_hit_rate.",
            ),
            Panel(
                "Entries that cannot be read",
                [Query(f"sum(rate({m.CACHE_POISONED}{APPLICATION}[{STEP_OF_RATES}]))", "entries")],
                Unit.PER_SECOND,
            ),
        ],
    )


def safety_and_cache() -> Dashboard:
    """What the guard decides, and what the answer cache spares."""
    return Dashboard(
        "manta-safety-cache",
        "Manta / Safety and cache",
        [
            safety_row(),
            cache_row(),
            stored_answers_row(),
        ],
        [Variable("application", m.BUILD_INFO), Variable("tenant", m.REQUESTS)],
    )


_BLOCKED = f'{{{_OF}, tenant=~"$tenant", decision="blocked"}}'


def dashboards() -> Sequence[Dashboard]:
    """Returns all dashboards."""
    return [service(), engine(), scaling(), tenants(), safety_and_cache()]
