"""The dashboard of safety and cache."""

from __future__ import annotations

from k8s.monitoring import metric_names as m
from k8s.monitoring.boards.queries import APPLICATION, OF_APP, STEP_OF_RATES, TENANT, rate
from k8s.monitoring.grafana import Dashboard, Panel, Query, Row, Unit, Variable

BLOCKED = f'{{{OF_APP}, tenant=~"$tenant", decision="blocked"}}'


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
                        f"topk(20, {rate(m.SAFETY_DECISIONS, 'tenant', BLOCKED)})",
                        "{{tenant}}",
                    )
                ],
                Unit.PER_SECOND,
            ),
            Panel(
                "Verdicts by check and category",
                [Query(rate(m.SAFETY_VERDICTS, "check, category", APPLICATION), "{{check}} {{category}}")],
                Unit.PER_SECOND,
                "Of all tenants. unscanned: the check has failed or took too long.",
            ),
            Panel(
                "Verdicts by stage and action",
                [Query(rate(m.SAFETY_VERDICTS, "stage, action", APPLICATION), "{{stage}} {{action}}")],
                Unit.PER_SECOND,
                "before: on the request; during and after: on the answer, streamed or whole.",
            ),
            Panel(
                "Answers begun ahead of the checks",
                [Query(rate(m.SPECULATIONS, "outcome", APPLICATION), "{{outcome}}")],
                Unit.PER_SECOND,
                "kept: sent after the checks. All others were for nothing.",
                stacked=True,
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
    hits = f'sum(rate({m.CACHE_REQUESTS}{{{OF_APP}, tenant=~"$tenant", status=~"exact|semantic"}}[{STEP_OF_RATES}]))'
    asked = f'sum(rate({m.CACHE_REQUESTS}{{{OF_APP}, tenant=~"$tenant", status!="bypass"}}[{STEP_OF_RATES}]))'
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
                        rate(
                            m.CACHE_REASONS,
                            "reason",
                            f'{{{OF_APP}, status=~"miss|bypass"}}',
                        ),
                        "{{reason}}",
                    )
                ],
                Unit.PER_SECOND,
                "Of all tenants.",
            ),
        ],
    )


def stored_answers_row() -> Row:
    """Returns the panels of what the answer cache stores, and of hits that were wrong."""
    wrong = f'sum by (judge) (rate({m.CACHE_JUDGED}{{{OF_APP}, tenant=~"$tenant", wrong="true"}}[1h]))'
    judged = f"sum by (judge) (rate({m.CACHE_JUDGED}{TENANT}[1h]))"
    return Row(
        "Stored answers",
        [
            Panel("Stored", [Query(rate(m.CACHE_STORED, "tenant", TENANT), "{{tenant}}")], Unit.PER_SECOND),
            Panel(
                "Not stored",
                [Query(rate(m.CACHE_UNSTORED, "reason", APPLICATION), "{{reason}}")],
                Unit.PER_SECOND,
                "Of all tenants.",
            ),
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
