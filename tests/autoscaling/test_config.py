from __future__ import annotations

import pytest
from pydantic import ValidationError

from cluster.autoscaling.config import AutoscalingConfig, SloConfig, TierScalingConfig
from engine.api import Priority


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"tiers": {"fast": {"min": 3, "max": 2}}}, "max is 2"),
        ({"tiers": {"fast": {"max": 2, "schedules": [{"min": 4, "start": "08:00", "end": "18:00"}]}}}, "minimum of 4"),
        ({"tiers": {"fast": {"pool": "a"}}}, "no pool 'a'"),
        ({"tiers": {"fast": {}}, "followers": {"fast": {}}}, "a tier has that name"),
        ({"timezone": "Mars/Olympus"}, "no time zone"),
        ({"tiers": {"fast": {"slos": {"express": {}}}}}, "express"),
        ({"fast": {"band": 1.5}}, "band"),
        ({"interval_s": 3.0}, "interval_s is 3; it may be 2.5 at most, half of fast.stale_s"),
        ({"interval_s": 0.5, "fast": {"stale_s": 0.6}}, "interval_s"),
        ({"interval_s": 6.0, "fast": {"stale_s": 60.0}}, "interval_s is 6; it may be 5 at most"),
        ({"tires": {}}, "tires"),
        ({"tiers": {"fast": {"schedules": [{"min": 1, "start": "08:00Z", "end": "18:00"}]}}}, "timezone"),
        ({"tiers": {"fast": {"schedules": [{"min": 1, "start": "08:00", "end": 1080}]}}}, "1080 is a number"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        AutoscalingConfig.model_validate(settings)


def test_a_schedule_is_the_same_after_the_way_to_the_controller() -> None:
    settings = AutoscalingConfig.model_validate(
        {"tiers": {"fast": {"schedules": [{"min": 1, "start": "08:00", "end": "18:30:15"}]}}}
    )
    assert AutoscalingConfig.model_validate(settings.model_dump(mode="json")) == settings


def test_a_class_without_objectives_has_the_strictest() -> None:
    tier = TierScalingConfig.model_validate(
        {
            "slos": {
                "interactive": {"ttft_p99_s": 0.5, "ttft_s_per_1k_tokens": 0.3, "itl_p99_s": 0.2},
                "batch": {"ttft_p99_s": 0.1, "itl_p99_s": 0.01},
                "standard": {"ttft_p99_s": 3.0, "ttft_s_per_1k_tokens": 0.2, "itl_p99_s": 0.05},
            }
        }
    )

    assert tier.strictest == SloConfig(ttft_p99_s=0.5, ttft_s_per_1k_tokens=0.2, itl_p99_s=0.05)
    assert tier.slo(Priority.STANDARD) == SloConfig(ttft_p99_s=3.0, ttft_s_per_1k_tokens=0.2, itl_p99_s=0.05)
    assert TierScalingConfig().slo(Priority.INTERACTIVE) == SloConfig()
    assert TierScalingConfig().slo(Priority.BATCH) is None


def test_an_objective_of_batch_work_starts_and_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    TierScalingConfig()
    assert not caplog.messages
    TierScalingConfig(slos={"batch": SloConfig(ttft_p99_s=60.0)})
    assert "slos.batch scales nothing" in caplog.text
