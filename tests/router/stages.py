"""``Stages``: keeps the times of stages for tests."""

from __future__ import annotations

from router.ports.stage_metrics import Operation, Took


class Stages:
    """All stages that have ended, in their order. Implements ``StageMetrics``."""

    def __init__(self) -> None:
        self.ended: list[tuple[Operation, str, float]] = []

    def of(self, operation: Operation) -> Took:
        return lambda stage, seconds: self.ended.append((operation, stage, seconds))
