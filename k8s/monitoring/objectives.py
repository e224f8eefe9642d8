"""``Objective``: what the service promises, and the alerts when its error budget burns too fast.

See "The Site Reliability Workbook", chapter 5: an alert fires if the budget burns at ``rate`` times the speed that
would use it up in 30 days, over a long window and, so that it ends soon, over a short one too. A window with few events
says nothing: one failure of two requests would be half of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from k8s.monitoring.metric_names import ITL, REQUESTS, TTFT, bucket_of, count_of
from k8s.monitoring.rule import PAGE, TICKET, Alert, Recording, Severity


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
class Objective:
    """A share of events, ``target``, that is to be good, for each tier.

    ``good`` and ``total`` are the counters, with their matchers. ``name`` is part of the names of rules, ``title`` of
    those of alerts.
    """

    name: str
    title: str
    promise: str
    target: float
    good: str
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
            Recording(self.events(each.long), f"sum by (tier) (increase({self.total}[{each.long}]))")
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
        total = f"sum by (tier) (rate({self.total}[{window}]))"
        good = f"sum by (tier) (rate({self.good}[{window}]))"
        return f"({total} - ({good} or 0 * {total})) / {total}"


TTFT_BOUND_S, ITL_BOUND_S = 2.0, 0.1
"""Seconds of the objectives: those of ``cluster.autoscaling.config.SloConfig``, and bounds of the engine's buckets."""

OBJECTIVES: Sequence[Objective] = (
    Objective(
        "availability",
        "Availability",
        "999 of 1,000 requests end without a fault of the service.",
        0.999,
        f'{REQUESTS}{{outcome=~"finished|cancelled"}}',
        f'{REQUESTS}{{outcome=~"finished|cancelled|failed"}}',
    ),
    Objective(
        "ttft",
        "FirstToken",
        f"99 of 100 first tokens that a user waits for come within {TTFT_BOUND_S:g} s.",
        0.99,
        f'{bucket_of(TTFT)}{{class!="batch", le="{TTFT_BOUND_S}"}}',
        f'{count_of(TTFT)}{{class!="batch"}}',
    ),
    Objective(
        "itl",
        "TokenInterval",
        f"99 of 100 tokens come within {ITL_BOUND_S:g} s of the one before.",
        0.99,
        f'{bucket_of(ITL)}{{le="{ITL_BOUND_S}"}}',
        count_of(ITL),
    ),
)
