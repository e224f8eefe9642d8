"""The seeds of a request's choices. Imports no torch, so that a router can continue single choices elsewhere.

The mixing function is SplitMix64's (Steele et al. 2014).
"""

from __future__ import annotations

GAMMA = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
MASK = 2**64 - 1


def choice_seed(seed: int, choice: int) -> int:
    """Returns the seed of choice number ``choice`` of a request. The first choice has the request's seed."""
    return seed if choice == 0 else mix(mix(seed & MASK) ^ choice) >> 1


def mix(value: int) -> int:
    """Returns SplitMix64's mix of ``value``, an unsigned 64-bit integer."""
    value = value + GAMMA & MASK
    value = (value ^ value >> 30) * MIX_1 & MASK
    value = (value ^ value >> 27) * MIX_2 & MASK
    return value ^ value >> 31
