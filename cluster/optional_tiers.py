"""Optional tiers: those whose model is missing, and the settings without them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from cluster.config import MantaConfig
from engine.model.location import ModelNotFoundError, locate

logger = logging.getLogger(__name__)


def missing_tiers(config: MantaConfig) -> list[str]:
    """Logs a warning for each optional tier whose model is not on this machine. Returns the names of these tiers, in
    the order of ``config.tiers``."""
    missing = []
    for tier in config.tiers:
        if not tier.optional:
            continue
        try:
            locate(tier.engine.model)
        except ModelNotFoundError as error:
            logger.warning("without the optional tier %s: %s", tier.name, error)
            missing.append(tier.name)
    return missing


def without_tiers(config: MantaConfig, missing: Collection[str]) -> MantaConfig:
    """Returns a copy of ``config`` without the tiers ``missing`` and without the settings that refer to them: aliases,
    thresholds, rights of keys.

    A key whose tiers are all missing is removed too. The first tier that is left has no threshold. Raises ValueError if
    no tier or no key is left.
    """
    if not missing:
        return config
    router = config.router
    auto = router.auto
    if auto is not None and auto.thresholds is not None:
        first = next((tier.name for tier in config.tiers if tier.name not in missing), None)
        left = {name: score for name, score in auto.thresholds.items() if name not in missing and name != first}
        auto = auto.model_copy(update={"thresholds": left})
    keys = [
        key if key.tiers is None else key.model_copy(update={"tiers": _others(key.tiers, missing)})
        for key in router.keys
    ]
    aliases = {alias: target for alias, target in router.aliases.items() if target not in missing}
    prices = {name: price for name, price in router.prices.tiers.items() if name not in missing}
    overflow = {name: each for name, each in router.prompts.tiers.items() if name not in missing}
    admission = {name: each for name, each in router.admission.tiers.items() if name not in missing}
    kept = [key for key in keys if key.tiers is None or key.tiers]
    if not kept:
        raise ValueError(
            f"router.keys: no key may use another tier than {', '.join(missing)}, whose models are missing"
        )
    return MantaConfig(
        tiers=tuple(tier for tier in config.tiers if tier.name not in missing),
        router=router.model_copy(
            update={
                "auto": auto,
                "aliases": aliases,
                "keys": tuple(kept),
                "prices": router.prices.model_copy(update={"tiers": prices}),
                "prompts": router.prompts.model_copy(update={"tiers": overflow}),
                "admission": router.admission.model_copy(update={"tiers": admission}),
            }
        ),
        ingress=config.ingress,
        placement=config.placement,
        state=config.state,
        safety=config.safety,
        embedder=config.embedder,
        cache=config.cache,
        autoscaling=None if config.autoscaling is None else config.autoscaling.without(missing),
        small_models=config.small_models,
        telemetry=config.telemetry,
    )


def _others(names: Sequence[str], missing: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in missing)
