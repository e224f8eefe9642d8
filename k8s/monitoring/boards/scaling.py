"""The dashboard of scaling and rollout."""

from __future__ import annotations

from k8s.monitoring import metric_names as m
from k8s.monitoring.boards.queries import APPLICATION, OF_APP, TIER, gauge, quantiles, rate
from k8s.monitoring.grafana import Dashboard, Panel, Query, Row, Unit, Variable

WHY_NOT_MORE = f'{{{OF_APP}, tier=~"$tier", direction="more"}}'


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
            Panel(
                "Why not more", [Query(rate(m.SCALING_WHY_NOT, "tier, reason", WHY_NOT_MORE), "{{tier}} {{reason}}")]
            ),
            Panel("Waiting for a first replica", [Query(f"max by (tier) ({m.WAITING_FOR_START}{TIER})", "{{tier}}")]),
            Panel("Failed starts", [Query(gauge(m.START_FAILURES, "tier"), "{{tier}}")]),
            Panel(
                "Error budget",
                [Query(f"max by (tier) ({m.BUDGET_BURN}{TIER})", "{{tier}}")],
                description="Requests late or refused lately, by those that may be: at 1 the budget is spent as fast as"
                " the objectives allow. Below a quarter the autoscaler keeps less in reserve.",
            ),
            Panel("Cold start", [Query(f"max by (tier) ({m.COLD_START}{TIER})", "{{tier}}")], Unit.SECONDS),
        ],
    )


def replicas_row() -> Row:
    """Returns the panels of the replicas and routers that run, with their versions."""
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
            ),
            Panel(
                "Routers",
                [Query(f"count by (release) ({m.ROUTER_BUILD_INFO}{APPLICATION})", "{{release}}")],
                description="Two releases at once: a rollout is under way, or has stopped half-way.",
                stacked=True,
            ),
        ],
    )


def rollout_row() -> Row:
    """Returns the panels that say whether a rollout hurts."""
    failed = f'{{{OF_APP}, tier=~"$tier", outcome="failed"}}'
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
