"""The dashboard of tenants."""

from __future__ import annotations

from k8s.monitoring import metric_names as m
from k8s.monitoring.boards.queries import OF_APP, TENANT, rate
from k8s.monitoring.grafana import Dashboard, Panel, Query, Row, Unit, Variable


def tenants() -> Dashboard:
    """Who uses what, what it costs, and whom limits hold back. The ledger is exact; this is for graphs."""
    return Dashboard(
        "manta-tenants",
        "Manta / Tenants and cost",
        [
            use_row(),
            cost_row(),
            limits_row(),
        ],
        [Variable("application", m.BUILD_INFO), Variable("tenant", m.REQUESTS)],
    )


def use_row() -> Row:
    """Returns the panels of what tenants use."""
    return Row(
        "Use",
        [
            Panel("Requests", _top(rate(m.REQUESTS, "tenant", TENANT)), Unit.PER_SECOND),
            Panel("Tokens", _top(rate(m.TOKENS, "tenant", TENANT)), Unit.PER_SECOND),
            Panel(
                "Failed requests",
                _top(rate(m.REQUESTS, "tenant", f'{{{OF_APP}, tenant=~"$tenant", outcome="failed"}}')),
                Unit.PER_SECOND,
            ),
        ],
    )


def cost_row() -> Row:
    """Returns the panels of what it costs."""
    return Row(
        "Cost",
        [
            Panel(
                "Cost of an hour, by tenant",
                _top(f"sum by (tenant) (increase({m.COST}{TENANT}[1h]))"),
                description="In the currency of router.prices.",
            ),
            Panel(
                "Cost of an hour, by tier",
                [Query(f"sum by (tier) (increase({m.COST}{TENANT}[1h]))", "{{tier}}")],
                stacked=True,
            ),
        ],
    )


def limits_row() -> Row:
    """Returns the panels of whom limits hold back."""
    return Row(
        "Limits",
        [
            Panel("Refusals", _top(rate(m.LIMIT_REFUSALS, "tenant, limit", TENANT), " {{limit}}"), Unit.PER_SECOND),
            Panel(
                "Nearly used up", _top(rate(m.LIMIT_WARNINGS, "tenant, limit", TENANT), " {{limit}}"), Unit.PER_SECOND
            ),
        ],
    )


def _top(expression: str, more: str = "") -> list[Query]:
    """Returns the query of the 20 highest series of ``expression``, whose legend is the tenant and ``more``."""
    return [Query(f"topk(20, {expression})", "{{tenant}}" + more)]
