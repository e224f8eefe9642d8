"""What tokens cost."""

from __future__ import annotations

from pydantic import Field

from router.config.settings import Settings


class PriceConfig(Settings):
    """The price of a tier per million tokens, in the currency of the prices."""

    input: float = Field(ge=0, allow_inf_nan=False)
    """Tokens of prompts."""
    cached_input: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Tokens of prompts that were in the prefix cache. None: as ``input``."""
    output: float = Field(ge=0, allow_inf_nan=False)
    """Tokens of answers, reasoning included."""

    @property
    def per_million(self) -> tuple[float, float, float]:
        """The prices of a million tokens of input, cached input and output, in the currency of the prices."""
        return self.input, self.input if self.cached_input is None else self.cached_input, self.output


class PricesConfig(Settings):
    """The price list."""

    version: str = Field("none", min_length=1, max_length=64)
    """The version of the list. Each ledger entry names it, so that a cost can be explained later."""
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")
    """The currency (ISO 4217) of all prices, costs and budgets."""
    tiers: dict[str, PriceConfig] = Field(default_factory=dict)
    """The price of each tier. If one has a price, all must: a tier that was forgotten would cost nothing. {}: tokens
    are counted, and cost nothing. The input of /v1/embeddings has the price of ``embeddings``."""
