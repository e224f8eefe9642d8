"""The queries of the dashboards' panels."""

from __future__ import annotations

from k8s.monitoring.grafana import Query
from k8s.monitoring.metric_names import bucket_of, count_of, sum_of

OF_APP = 'application=~"$application"'
APPLICATION, TIER, TENANT = (
    f"{{{OF_APP}}}",
    f'{{{OF_APP}, tier=~"$tier"}}',
    f'{{{OF_APP}, tenant=~"$tenant"}}',
)
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


def quantiles(histogram: str, by: str, *shares: float, matchers: str = TIER) -> list[Query]:
    """Returns quantiles of a histogram, by labels beside the bound."""
    names = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    buckets = f"sum by ({by}, le) (rate({bucket_of(histogram)}{matchers}[{STEP_OF_RATES}]))"
    return [Query(f"histogram_quantile({each}, {buckets})", f"{names} p{100 * each:g}") for each in shares]


def mean(histogram: str, by: str) -> Query:
    """Returns the mean of a histogram."""
    return Query(f"{rate(sum_of(histogram), by)} / {rate(count_of(histogram), by)}", f"{{{{{by}}}}} mean")
