"""The dashboard of tenants."""

from __future__ import annotations

from k8s.monitoring import metric_names as m
from k8s.monitoring.boards.queries import OF_APP, TENANT, rate
from k8s.monitoring.grafana import Dashboard, Panel, Query, Row, Unit, Variable


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
                        top(rate(m.REQUESTS, "tenant", f'{{{OF_APP}, tenant=~"$tenant", outcome="failed"}}')),
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
