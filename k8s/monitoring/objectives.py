"""``Objective``: what the service promises, and the alerts when its error budget burns too fast.

See "The Site Reliability Workbook", chapter 5: an alert fires if the budget burns at ``rate`` times the speed that
would use it up in 30 days, over a long window and, so that it ends soon, over a short one too. A window with few events
says nothing: one failure of two requests would be half of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from cluster.autoscaling.config import AutoscalingConfig, SloConfig
from engine.api import LATENCY_BOUNDS_S, Priority
from k8s.monitoring.metric_names import ITL, REQUESTS, TTFT, bucket_of, count_of
from k8s.monitoring.rule import PAGE, TICKET, Alert, Recording, Severity

PROD = Path(__file__).resolve().parents[2] / "deployments" / "prod.yaml"


@dataclass(frozen=True, slots=True)
class BurnRate:
    """An alert if both windows burn the budget at ``rate`` times its speed, with at least ``min_events`` in the long
    one. Windows are durations of Prometheus."""

    rate: float
    long: str
    short: str
    severity: Severity
    min_events: int


BURN_RATES = (
    BurnRate(14.4, "1h", "5m", PAGE, 50),
    BurnRate(6, "6h", "30m", PAGE, 100),
    BurnRate(1, "3d", "6h", TICKET, 200),
)
WINDOWS = tuple(dict.fromkeys(window for each in BURN_RATES for window in (each.short, each.long)))


@dataclass(frozen=True, slots=True)
class Good:
    """A counter of good events, with its matchers. ``instead`` is what counts for processes that do not have it: those
    of a release or a config with other objectives, whose events would all be bad otherwise. "": nothing."""

    counter: str
    instead: str = ""

    def rate(self, window: str) -> str:
        """Returns the good events per second, by tier."""
        counted = f"rate({self.counter}[{window}])"
        if self.instead:
            counted += f" or ignoring (le) rate({self.instead}[{window}])"
        return f"sum by (application, tier) ({counted})"


@dataclass(frozen=True, slots=True)
class Objective:
    """A share of events, ``target``, that is to be good, for each tier of each application.

    ``total`` is the counter of all events, with its matchers; counters of ``good`` have no tier in common. ``name`` is
    part of the names of rules, ``title`` of those of alerts.
    """

    name: str
    title: str
    promise: str
    target: float
    good: tuple[Good, ...]
    total: str

    def ratio(self, window: str) -> str:
        """Returns the name of the recorded share of bad events."""
        return f"manta:{self.name}_errors:ratio_rate{window}"

    def events(self, window: str) -> str:
        """Returns the name of the recorded number of events."""
        return f"manta:{self.name}_events:increase{window}"

    def recordings(self) -> list[Recording]:
        """Returns the rules that record the shares, and the numbers of events of the long windows."""
        shares = [Recording(self.ratio(window), self._errors(window)) for window in WINDOWS]
        numbers = [
            Recording(self.events(each.long), f"sum by (application, tier) (increase({self.total}[{each.long}]))")
            for each in BURN_RATES
        ]
        return shares + numbers

    def alerts(self) -> list[Alert]:
        """Returns one alert for each pair of windows."""
        return [self._alert(each) for each in BURN_RATES]

    def _alert(self, burn: BurnRate) -> Alert:
        bound = f"{burn.rate:g} * {1 - self.target:.6g}"
        speed = "fast" if burn.severity is PAGE else "slowly"
        return Alert(
            name=f"Manta{self.title}BudgetBurn",
            expression=f"{self.ratio(burn.long)} > {bound}\nand {self.ratio(burn.short)} > {bound}\n"
            f"and {self.events(burn.long)} >= {burn.min_events}",
            severity=burn.severity,
            hold="2m",
            summary=f"Tier {{{{ $labels.tier }}}} breaks its objective {speed}: {self.promise}",
            description=f"{{{{ $value | humanizePercentage }}}} of the events of the last {burn.long} were bad, "
            f"{burn.rate:g} times what the objective allows.",
            labels=(("objective", self.name), ("long_window", burn.long)),
        )

    def _errors(self, window: str) -> str:
        """Returns the share of bad events. Where no event was good, ``good`` has no series."""
        total = f"sum by (application, tier) (rate({self.total}[{window}]))"
        good = " or ".join(each.rate(window) for each in self.good)
        return f"({total} - ({good} or 0 * {total})) / {total}"


def promised(path: Path = PROD) -> Mapping[str, SloConfig]:
    """Returns the objectives by which the tiers of a Serve config are scaled, of the class standard, by tier."""
    (application,) = yaml.safe_load(path.read_text(encoding="utf-8"))["applications"]
    scaling = AutoscalingConfig.model_validate(application["args"].get("autoscaling") or {})
    slos = {name: tier.slo(Priority.STANDARD) for name, tier in scaling.tiers.items()}
    return {name: slo for name, slo in slos.items() if slo is not None}


def objectives() -> Sequence[Objective]:
    """Returns the objectives. Tiers without latencies of their own in deployments/prod.yaml have the usual ones. A
    bucket of the engine's histograms ends at each (``cluster.latency_objectives``)."""
    slos, usual = promised(), SloConfig()
    ttft = {name: slo.ttft_p99_s for name, slo in slos.items()}
    itl = {name: slo.itl_p99_s for name, slo in slos.items()}
    return (
        Objective(
            "availability",
            "Availability",
            "999 of 1,000 requests end without a fault of the service.",
            0.999,
            (Good(f'{REQUESTS}{{outcome=~"finished|cancelled"}}'),),
            f'{REQUESTS}{{outcome=~"finished|cancelled|failed"}}',
        ),
        Objective(
            "ttft",
            "FirstToken",
            f"99 of 100 first tokens that a user waits for come within {_in_words(ttft, usual.ttft_p99_s)}.",
            0.99,
            _up_to(bucket_of(TTFT), ttft, usual.ttft_p99_s, 'class!="batch", '),
            f'{count_of(TTFT)}{{class!="batch"}}',
        ),
        Objective(
            "itl",
            "TokenInterval",
            f"99 of 100 tokens follow the one before within {_in_words(itl, usual.itl_p99_s)}.",
            0.99,
            _up_to(bucket_of(ITL), itl, usual.itl_p99_s),
            count_of(ITL),
        ),
    )


def _up_to(buckets: str, bounds: Mapping[str, float], usual: float, matchers: str = "") -> tuple[Good, ...]:
    """Returns the buckets up to the bound of each tier, and to the usual one of all others."""
    own = (_bucket(buckets, f'{matchers}tier="{tier}"', bound) for tier, bound in bounds.items())
    return (*own, _bucket(buckets, f'{matchers}tier!~"{"|".join(bounds)}"', usual))


def _bucket(buckets: str, matchers: str, bound: float) -> Good:
    """Returns the bucket that ends at ``bound``; instead of one that only the processes with this objective have, that
    of the usual bound before it."""
    before = max((each for each in LATENCY_BOUNDS_S if each < bound), default=None)
    usual = bound in LATENCY_BOUNDS_S or before is None
    names = (f'{buckets}{{{matchers}, le="{float(each)}"}}' for each in (bound, *(() if usual else (before,))))
    return Good(*names)


def _in_words(bounds: Mapping[str, float], usual: float) -> str:
    """Returns the bounds of all tiers for people."""
    return "".join(f"{bound:g} s ({tier}), " for tier, bound in bounds.items()) + f"{usual:g} s (others)"
