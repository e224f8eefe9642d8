"""The dashboard of the service as its users see it."""

from __future__ import annotations

from k8s.monitoring import metric_names as m
from k8s.monitoring.boards.queries import APPLICATION, OF_APP, TIER, gauge, quantiles, rate
from k8s.monitoring.grafana import Dashboard, Panel, Query, Row, Unit, Variable
from k8s.monitoring.objectives import objectives


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
            stage_row(),
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


def stage_row() -> Row:
    """Where the time of a request goes in the router."""
    generation, others = (f'{{{OF_APP}, operation{match}"generation"}}' for match in ("=", "!="))
    return Row(
        "Stages of a request",
        [
            Panel(
                "Median",
                quantiles(m.STAGE, "stage", 0.5, matchers=generation),
                Unit.SECONDS,
                "Of generation. Up to moderate they add up to the time to the first token at the router; stream is the "
                "rest of the answer. access has the upload of the body, route the wait at the admission.",
            ),
            Panel("99th percentile", quantiles(m.STAGE, "stage", 0.99, matchers=generation), Unit.SECONDS),
            Panel(
                "Embeddings and moderations",
                quantiles(m.STAGE, "operation, stage", 0.5, 0.99, matchers=others),
                Unit.SECONDS,
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
            Panel(
                "Lost records",
                [
                    Query(gauge(m.LOST_RECORDS, "log", APPLICATION), "{{log}}"),
                    Query(gauge(m.LOST_TEXTS, "reason", APPLICATION), "texts: {{reason}}"),
                ],
            ),
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
