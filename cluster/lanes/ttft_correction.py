"""``TtftCorrection``: how measured TTFTs of one replica lately differ from predicted ones. Pure."""

from __future__ import annotations

MEMORY = 0.98
"""Factor by which earlier measurements count less with each new one: some fifty count."""

SURPRISE, FIRST_SURPRISE = 1.3, 2.0
"""Largest factor by which one measurement counts as off, and that of the first FIRST. So the fit is near the median,
and one request that waited for a client or a compiler moves it little."""

FIRST = 50

LEAST, MOST = 0.2, 5.0
"""Bounds of the factor. Beyond them the prediction is wrong in a way that a factor does not repair."""

MOST_OVERHEAD_S = 0.5
"""Bound of the overhead."""

LEAST_S, MOST_S = 1e-4, 1e4
"""TTFTs below, and those above, are not distinguished."""

LEAST_SPREAD = 1e-3
"""Of the squares of predictions, the least share that is their variance."""


class TtftCorrection:
    """The fit ``measured = overhead_s + factor * predicted`` by least squares of relative errors.

    The overhead is what each request takes beside the engine's steps: networks, event loops, tokenising. Without
    measurements there is no overhead, and the factor is 1.
    """

    def __init__(self) -> None:
        self.overhead_s = 0.0
        self.factor = 1.0
        # Weighted sums of 1, p, p * p, m and p * m, with p predicted and m measured seconds.
        self._sums = (0.0,) * 5
        self._count = 0

    def observe(self, predicted_s: float, measured_s: float) -> None:
        """Records a measured TTFT, and the TTFT that was predicted for it without correction."""
        predicted_s = _within(predicted_s, LEAST_S, MOST_S)
        if not self._sums[0]:
            for prior_s in (predicted_s / 2, predicted_s * 2):
                self._add(prior_s, prior_s, prior_s**-2)
        expected_s = max(self.overhead_s + self.factor * predicted_s, LEAST_S)
        most = SURPRISE if self._count >= FIRST else FIRST_SURPRISE
        self._count += 1
        self._add(predicted_s, _within(measured_s, expected_s / most, expected_s * most), expected_s**-2)
        self._solve()

    def _add(self, predicted_s: float, measured_s: float, weight: float) -> None:
        ones, p, pp, m, pm = self._sums
        self._sums = (
            MEMORY * ones + weight,
            MEMORY * p + weight * predicted_s,
            MEMORY * pp + weight * predicted_s**2,
            MEMORY * m + weight * measured_s,
            MEMORY * pm + weight * (predicted_s * measured_s),
        )

    def _solve(self) -> None:
        ones, p, pp, m, pm = self._sums
        spread = ones * pp - p**2
        factor = self.factor
        if spread > LEAST_SPREAD * ones * pp:  # predictions of one size do not say which is overhead and which factor
            factor = _within((ones * pm - p * m) / spread, LEAST, MOST)
        self.overhead_s = _within((m - factor * p) / ones, 0.0, MOST_OVERHEAD_S)
        if not 0.0 < self.overhead_s < MOST_OVERHEAD_S:
            factor = _within((pm - self.overhead_s * p) / pp, LEAST, MOST)
        self.factor = factor


def _within(value: float, least: float, most: float) -> float:
    """Returns ``value`` within its bounds: at half the cost of ``min`` and ``max``, for each request's TTFT."""
    return least if value < least else most if value > most else value
