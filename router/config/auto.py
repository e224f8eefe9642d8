"""How ``model: auto`` chooses a tier."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from router.config.settings import Settings


class AutoConfig(Settings):
    """The settings by which ``model: auto`` chooses a tier: by a forecast of each tier's quality, or by the prompt's
    complexity score."""

    forecast: str | None = Field(None, min_length=1)
    """Path of a forecaster's file, which ``python -m deployments.models.training.routing`` writes. None: the complexity
    score decides. The forecaster must be fitted to all configured tiers. A relative path starts at the working
    directory. The file is read once, in the process that builds the application."""
    tolerance: float = Field(0.05, ge=0, le=1)
    """With a forecaster: the cheapest tier is chosen whose forecast chance of a right answer is at most this much below
    the best tier's. 0 always chooses the best tier, 1 always the cheapest."""
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = None
    """Without a forecaster: the complexity score, 0 to 1, from which each tier is chosen. The weakest tier has no
    threshold. A tier without one is never chosen, unless a key may use no other. None: thresholds are spread evenly
    from 0.30 to 0.55."""
