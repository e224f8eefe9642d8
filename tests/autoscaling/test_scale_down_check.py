"""Which objective fewer replicas would miss."""

from __future__ import annotations

import pytest

from cluster.autoscaling.arrival_rate import ArrivalRate
from cluster.autoscaling.config import FastLoopConfig, SloConfig, TierScalingConfig
from cluster.autoscaling.decision import Reason
from cluster.autoscaling.replica_model import ReplicaModel
from cluster.autoscaling.scale_down_check import fewest, objection
from cluster.autoscaling.signal_inputs import SignalInputs
from cluster.autoscaling.snapshot import WaitingRoom
from cluster.autoscaling.tier_load import TierLoad


def evidence(
    queued: float = 0.0, in_flight: float = 0.0, rate: float = 0.0, kv: float = 0.0, prompt: float = 500.0
) -> SignalInputs:
    """Ten replicas with 10,000 prompt tokens/s each, whose steps take 20 ms and 0.5 ms for each sequence."""
    return SignalInputs(
        at_s=1000.0,
        load=TierLoad(
            *(10, 10),
            queued_prompt_tokens=queued,
            in_flight=in_flight,
            kv_demand_tokens=kv,
            kv_capacity_tokens=100_000,
        ),
        flow=ArrivalRate(rate, prompt, 100.0),
        steady=False,
        model=ReplicaModel(10_000, 0.02, 0.0005),
        tier=TierScalingConfig(max=20),
        slo=SloConfig(ttft_p99_s=2.0, itl_p99_s=0.1),
        fast=FastLoopConfig(),
        cold_start_s=60.0,
        waiting_room=WaitingRoom(),
        latencies=(),
        batch_work=(),
    )


@pytest.mark.parametrize(
    ("seen", "by", "least"),
    [
        (evidence(queued=50_000), Reason.BACKLOG, 4),  # 0.65 * 1.95 s of 10,000 tokens each
        (evidence(queued=20_000, in_flight=800, prompt=15_000), Reason.PREDICTED_TTFT, 9),
        (evidence(kv=400_000), Reason.KV_DEMAND, 5),  # four fifths of each cache
        (evidence(in_flight=600), Reason.PREDICTED_ITL, 5),  # steps of 90 ms have 140 sequences
        (evidence(rate=60), Reason.FLOW, 8),  # 0.1 s of work, 78 % of the time
    ],
)
def test_no_replica_is_taken_whose_loss_would_miss_an_objective(seen: SignalInputs, by: Reason, least: int) -> None:
    assert objection(seen, 10) is None
    fewer, against = fewest(seen, 1, 10)
    assert fewer == least
    assert against is not None
    assert (against.reason, against.replicas) == (by, least - 1)
    assert against.value > against.limit
