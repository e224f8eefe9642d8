"""Figures, the cases that find them, and what every case is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. ``share`` is the part of the limit ``of`` that it reaches; ``good`` whether it meets its target."""

    name: str
    value: float
    unit: str
    share: float | None = None
    of: str = ""
    target: str = ""
    good: bool | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one case: its figures, or why there are none."""

    section: str
    case: str
    seconds: float
    figures: tuple[Figure, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One piece of a section, which fails by itself."""

    name: str
    run: Callable[[], list[Figure]]


@dataclass(frozen=True, slots=True)
class Bench:
    """Where it is measured: a card, or with ``dry`` the CPU in Triton's interpreter, in tiny sizes. ``limits`` are
    bytes ("copy") and floating-point operations ("matmul") a second, as far as they were measured."""

    device: torch.device
    dry: bool
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        """What a card computes in; the interpreter's products of bfloat16 mean nothing."""
        return torch.float32 if self.dry else torch.bfloat16

    def share(self, rate: float, limit: str) -> float | None:
        """``rate`` as a part of what the card was seen to do."""
        most = self.limits.get(limit)
        return rate / most if most else None

    def rated(
        self, name: str, seconds: float, amount: float, limit: str, target: float | None = None, note: str = ""
    ) -> Figure:
        """``amount`` bytes or operations, by ``limit``, in ``seconds``: the time in microseconds, and the share."""
        share = self.share(amount / seconds, limit)
        good = None if target is None or share is None or self.dry else share >= target
        unit, scale = ("GB/s", 1e9) if limit == "copy" else ("TFLOP/s", 1e12)
        told = f"{amount / seconds / scale:.1f} {unit}" + (f"; {note}" if note else "")
        wanted = "" if target is None else f">= {target:.0%}"
        return Figure(name, 1e6 * seconds, "us", share, limit, wanted, good, told)


Cases = Callable[[Bench], Iterator[Case]]
"""A section: what it has to do on a bench."""
