"""Checks that the router's settings refer to tiers that exist, and that what they say of tiers fits together (pure).

``MantaConfig`` makes them when it is read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from router.config.router import RouterConfig
from router.embedding_request import EMBEDDINGS
from router.tiers.choose_tier import AUTO


def check_router_tiers(router: RouterConfig, tiers: Sequence[str]) -> None:
    """Checks that the router's settings refer to existing tiers only. ``tiers`` are all tiers, weakest first.

    Raises ValueError that names the wrong setting.
    """
    if router.auto is not None:
        check_thresholds(router.auto.thresholds or {}, tiers)
    check_aliases(router.aliases, tiers, has_auto=router.auto is not None)
    check_prices(router.prices.tiers, tiers)
    for name in router.prompts.tiers:
        check_tier(f"router.prompts.tiers.{name}", name, tiers)
    for name in router.admission.tiers:
        check_tier(f"router.admission.tiers.{name}", name, tiers)
    for place, key in enumerate(router.keys):
        for name in key.tiers or ():
            check_tier(f"router.keys.{place}.tiers", name, tiers)


def check_prices(prices: Collection[str], tiers: Sequence[str]) -> None:
    """Raises ValueError, naming the setting, for a price of a tier that does not exist, and for a tier without a price
    where others have one: its tokens would cost nothing. Embeddings may have a price too."""
    for name in (name for name in prices if name != EMBEDDINGS):
        check_tier(f"router.prices.tiers.{name}", name, tiers)
    for name in tiers:
        if prices and name not in prices:
            raise ValueError(f"router.prices.tiers: the tier {name} has no price")


def check_thresholds(thresholds: Mapping[str, float], tiers: Sequence[str]) -> None:
    """Checks ``router.auto.thresholds``. ``tiers`` are all tiers, weakest first.

    Raises ValueError, naming the setting, for a tier that does not exist, for a threshold of the first tier, which gets
    all scores below the others' thresholds, and for a threshold below that of a weaker tier.
    """
    for name in thresholds:
        check_tier(f"router.auto.thresholds.{name}", name, tiers)
    if tiers[0] in thresholds:
        raise ValueError(
            f"router.auto.thresholds.{tiers[0]}: the first tier has no threshold; it gets all scores below the others'"
        )
    ordered = [name for name in tiers if name in thresholds]
    for weaker, name in pairwise(ordered):
        if thresholds[name] < thresholds[weaker]:
            raise ValueError(
                f"router.auto.thresholds.{name}: {thresholds[name]:g} is below the threshold of the weaker tier "
                f"{weaker}, {thresholds[weaker]:g}"
            )


def check_aliases(aliases: Mapping[str, str], tiers: Sequence[str], *, has_auto: bool) -> None:
    """Checks ``router.aliases``.

    Raises ValueError, naming the setting, for an alias that is the name of a tier or ``auto``, for a target that is no
    tier, and for the target ``auto`` if ``has_auto`` is False.
    """
    for alias, target in aliases.items():
        key = f"router.aliases.{alias}"
        if alias in tiers or alias == AUTO:
            raise ValueError(f"{key}: an alias must not be the name of a tier or {AUTO}")
        if target == AUTO and not has_auto:
            raise ValueError(f"{key}: {AUTO} is not served, since router.auto is null")
        if target != AUTO:
            check_tier(key, target, tiers)


def check_tier(key: str, name: str, tiers: Sequence[str]) -> None:
    """Raises ValueError, naming the setting ``key``, if ``name`` is not one of ``tiers``."""
    if name not in tiers:
        what = "there is no such tier" if key.endswith(f".{name}") else f"there is no tier {name}"
        raise ValueError(f"{key}: {what}; there are {', '.join(tiers)}")
