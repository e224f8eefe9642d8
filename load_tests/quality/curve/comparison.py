"""What a router's choices come to on a run's items, beside everything that they are measured by.

No model answers again: a choice is right where the tier chosen was, and costs what it took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deployments.models.training.routing.sweep import Item, Point, Setting, oracle, outcome, sweep
from engine.api import Conversation
from load_tests.quality.item import HeldOut
from load_tests.quality.options import TASKS
from router.config.auto import AutoConfig
from router.tiers.choose_tier import TierChoice, choose_tier
from router.tiers.conversation_forecast import conversation_chances
from router.tiers.quality_forecast import Forecaster


@dataclass(frozen=True, slots=True)
class Run:
    """Every tier's answers to the same items, and the prompts of these."""

    tiers: tuple[str, ...]  # weakest first
    parameters: tuple[int, ...]
    prompts: tuple[Conversation, ...]
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """All that is compared: the router at every tolerance, and what it is measured by. Compute is relative to ``best``
    alone, the tier with the most right answers, the cheaper one of equals."""

    tiers: dict[str, Point]  # each alone, weakest first
    settings: list[Setting]
    heuristic: Point
    oracle: Point

    @property
    def best(self) -> str:
        """The tier that is best alone."""
        return _best(self.tiers)

    @property
    def reference(self) -> Point:
        """What ``best`` alone comes to."""
        return self.tiers[self.best]

    def at(self, tolerance: float) -> Setting:
        """The setting next to ``tolerance``."""
        return min(self.settings, key=lambda setting: abs(setting.tolerance - tolerance))


def read_run(document: dict[str, Any], held_out: HeldOut, tiers: Sequence[str]) -> Run:
    """The answers of ``tiers`` in what a run wrote. Raises ValueError for a run of another held-out set, and for one
    in which a tier, its size or an answer is missing."""
    try:
        tasks = document["sets"][TASKS]
        if tasks["sha256"] != held_out.sha256:
            raise ValueError(f"the run was made with another held-out set than {held_out.path}")
        missing = [tier for tier in tiers if tier not in document["parameters"]]
        if missing:
            raise ValueError(f"the run does not know the size of {', '.join(missing)}")
        rows = {(row["model"], row["id"]): row for row in tasks["rows"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"no run of `python -m load_tests.quality --json`: {error!r} is missing") from None
    failed = [name for name, row in rows.items() if name[0] in tiers and row["problem"]]
    if failed:
        raise ValueError(f"{len(failed)} requests failed, the first {failed[0]}: a curve needs every answer")
    known = [item for item in held_out.items if all((tier, item.id) in rows for tier in tiers)]
    if not known:
        raise ValueError(f"no item was answered by each of {', '.join(tiers)}")
    return Run(
        tiers=tuple(tiers),
        parameters=tuple(document["parameters"][tier] for tier in tiers),
        prompts=tuple(Conversation(item.messages) for item in known),
        items=tuple(_item([rows[tier, item.id] for tier in tiers]) for item in known),
    )


def make_curve(run: Run, forecaster: Forecaster) -> Curve:
    """Every comparison on the same items."""
    expected = [conversation_chances(forecaster, prompt) for prompt in run.prompts]
    choice = TierChoice(run.tiers, AutoConfig())
    routes = [choose_tier("auto", [prompt], None, choice) for prompt in run.prompts]
    tiers = {tier: outcome(run.items, [place] * len(run.items), run.parameters) for place, tier in enumerate(run.tiers)}
    unit = tiers[_best(tiers)].compute

    def scaled(point: Point) -> Point:
        return replace(point, compute=point.compute / unit)

    return Curve(
        tiers={tier: scaled(point) for tier, point in tiers.items()},
        settings=[replace(each, point=scaled(each.point)) for each in sweep(run.items, expected, run.parameters)],
        heuristic=scaled(outcome(run.items, [run.tiers.index(route.tier) for route in routes], run.parameters)),
        oracle=scaled(oracle(run.items, run.parameters)),
    )


def kept(point: Point, reference: Point) -> float:
    """Accuracy as a part of the reference's."""
    return point.accuracy / reference.accuracy if reference.accuracy else 1.0


def _best(tiers: Mapping[str, Point]) -> str:
    return max(tiers, key=lambda tier: (tiers[tier].accuracy, -tiers[tier].compute))


def _item(rows: Sequence[dict[str, Any]]) -> Item:
    return Item(
        tuple(bool(row["right"]) for row in rows),
        tuple(int(row["prompt_tokens"]) + int(row["completion_tokens"]) for row in rows),
    )
