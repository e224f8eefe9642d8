"""Sampling profiles, which requests name."""

from __future__ import annotations

from pydantic import Field

from router.config.settings import Settings

MIN_TOP_P = 1e-9
"""What OpenAI's ``top_p: 0`` becomes, since the engine refuses 0. Both select the most probable token alone."""


class ProfileConfig(Settings):
    """A sampling profile: sampling parameters for a use case. Parameters that a request sets itself override them."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_k: int | None = Field(None, ge=-1)
    top_p: float | None = Field(None, ge=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=100)

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters that the profile sets, by their names in SamplingParams. ``top_p: 0`` becomes MIN_TOP_P."""
        parameters: dict[str, float] = self.model_dump(exclude_none=True)
        if "top_p" in parameters:
            parameters["top_p"] = max(parameters["top_p"], MIN_TOP_P)
        return parameters


PROFILES = {
    "extraction": ProfileConfig(temperature=0.0, top_k=1, top_p=0.1),
    "factual": ProfileConfig(temperature=0.4, top_k=40, top_p=0.7),
    "creative": ProfileConfig(temperature=1.0, top_k=80, top_p=0.95),
    "experimental": ProfileConfig(temperature=1.5, top_k=200, top_p=0.98),
}
