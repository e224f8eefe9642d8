"""``PredictionMetrics``: how well the router predicts TTFTs, as Ray metrics.

======================================  ======================================  ======================================
counter                                 labels                                  unit
======================================  ======================================  ======================================
ray_manta_ttft_error_bucket_total       tier, direction, le                     requests whose prediction was off by at
                                                                                most this share of the measured TTFT
ray_manta_ttft_error_sum_total          tier, direction                         shares
ray_manta_ttft_error_count_total        tier, direction                         requests
======================================  ======================================  ======================================

``direction`` is late (the first token came later than predicted) or early. Each bucket has the counts of those below
it too.
"""

from __future__ import annotations

from cluster.telemetry.instruments import Instruments, RayInstruments

BOUNDS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
INFINITY = "+Inf"


class PredictionMetrics:
    """Counts the errors of the TTFTs that the router in this process predicts. ``instruments`` None: Ray's."""

    def __init__(self, instruments: Instruments | None = None) -> None:
        make = instruments or RayInstruments()
        text, labels = (
            "Errors of predicted TTFTs, as shares of the measured ones.",
            ("tier", "direction"),
        )
        self._buckets = make.counter("manta_ttft_error_bucket", text, (*labels, "le"))
        self._sum = make.counter("manta_ttft_error_sum", text, labels)
        self._count = make.counter("manta_ttft_error_count", text, labels)

    def count(self, tier: str, predicted_s: float, measured_s: float) -> None:
        """Counts a request of ``tier`` by its predicted and its measured TTFT, in seconds. A measured TTFT of 0 or less
        is ignored."""
        if measured_s <= 0:
            return
        error = abs(predicted_s - measured_s) / measured_s
        labels = {"tier": tier, "direction": "late" if measured_s > predicted_s else "early"}
        bounds = [str(bound) for bound in BOUNDS if error <= bound]
        for bound in (*bounds, INFINITY):
            self._buckets.inc(1, {**labels, "le": bound})
        self._count.inc(1, labels)
        if error > 0:  # Ray refuses to add 0
            self._sum.inc(error, labels)
