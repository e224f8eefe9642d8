"""The tiers to which the shipped forecaster sends conversations."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from engine.api import Conversation, Message
from router.config.auto import AutoConfig
from router.tiers.choose_tier import TierChoice, choose_tier
from router.tiers.quality_forecast import Forecaster

FORECASTER = Path(__file__).parents[2] / "deployments" / "models" / "auto.json"


@cache
def shipped() -> TierChoice:
    forecaster = Forecaster.from_json(FORECASTER.read_text(encoding="utf-8"))
    return TierChoice(forecaster.tiers, AutoConfig(tolerance=0.05), forecaster)


def tier_of(*turns: str) -> str:
    roles = ("user", "assistant")
    messages = tuple(Message(roles[place % 2], turn) for place, turn in enumerate(turns))
    return choose_tier("auto", [Conversation(messages)], None, shipped()).tier
