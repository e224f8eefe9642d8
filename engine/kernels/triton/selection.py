"""Finds the cuts (top-k, top-p) of one row's distribution by counting and summing the tokens above a bound, without
sorting.

Logits are compared as integers in the same order (``key_of``). A row is read in groups of GROUP tokens, whose maxima
are known: only groups with a token above a safe lower bound are read, fewer as the bound rises.
"""

# ruff: noqa: N803 (what is known when a kernel is compiled stands in capitals)
from __future__ import annotations

import triton
import triton.language as tl

GROUP = tl.constexpr(64)
"""Tokens of which the largest logit is kept."""
STEP = tl.constexpr(64)
"""Groups that a program reads at a time."""
LOWEST = tl.constexpr(-2139095041)
"""The key of -inf."""
_BY_VALUE = tl.constexpr(8)
"""So many times bounds are tried at values evenly apart; then at keys evenly apart, so that it ends."""
_MAX = tl.constexpr(1 << 30)


@triton.jit
def key_of(x: tl.tensor) -> tl.tensor:
    """Returns int32 keys in the order of float32 ``x``. Both zeros have the same key."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def value_of(key: tl.tensor) -> tl.tensor:
    """Returns the float32 of a key: the inverse of ``key_of``."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _between(lo: tl.tensor, hi: tl.tensor, eighths: tl.tensor, step: tl.tensor) -> tl.tensor:
    """The key so many eighths of the way from ``lo`` to ``hi``."""
    wide = lo.to(tl.int64)
    key = (wide + (((hi.to(tl.int64) - wide) * eighths) >> 3)).to(tl.int32)
    low = value_of(lo)
    value = key_of(low + (value_of(hi) - low) * (eighths * 0.125))
    # What is no number, where an end is infinite, has a key beyond both.
    return tl.where(step < _BY_VALUE, tl.minimum(tl.maximum(value, lo), hi), key)


@triton.jit
def list_groups(
    maxima: tl.tensor, groups: tl.tensor, lo: tl.tensor, listed: tl.tensor, PADDED: tl.constexpr
) -> tl.tensor:
    """Writes the numbers of the groups with tokens above ``lo`` to ``listed``, in order, and returns how many these
    are. ``maxima`` has the largest logit of each group. PADDED is a power of two of at least ``groups``."""
    at = tl.arange(0, PADDED)
    some = (key_of(tl.load(maxima + at, at < groups, other=float("-inf"))) > lo).to(tl.int32)
    tl.debug_barrier()  # all have read the list that is there
    tl.store(listed + tl.cumsum(some, 0) - some, at, some > 0)
    tl.debug_barrier()  # all can read the one that is now
    return tl.sum(some, 0)


@triton.jit
def read_groups(
    row: tl.tensor, temperature: tl.tensor, listed: tl.tensor, start: tl.tensor, end: tl.tensor, vocab: tl.tensor
) -> tl.tensor:  # fmt: skip
    """Returns token ids and logits, [STEP, GROUP], of STEP groups from the index ``start`` of ``listed``, which has
    ``end`` groups. The logits are those of ``row`` divided by ``temperature``; those from ``vocab`` on are -inf."""
    at = start + tl.arange(0, STEP)
    group = tl.load(listed + at, at < end, other=0)
    columns = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    mask = (at < end)[:, None] & (columns < vocab)
    x = tl.load(row + columns, mask, other=float("-inf"))
    return columns, tl.math.div_rn(x, temperature)


@triton.jit
def _tally(
    row: tl.tensor, temperature: tl.tensor, listed: tl.tensor, end: tl.tensor, vocab: tl.tensor, top: tl.tensor,
    first: tl.tensor, second: tl.tensor, third: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """Numbers of tokens above each of three keys, and sums of exp(logit - top) over them."""
    count_1 = tl.zeros([STEP, GROUP], tl.int32)
    count_2 = count_1
    count_3 = count_1
    mass_1 = tl.zeros([STEP, GROUP], tl.float32)
    mass_2 = mass_1
    mass_3 = mass_1
    for start in range(0, end, STEP):
        _, x = read_groups(row, temperature, listed, start, end, vocab)
        key = key_of(x)
        mass = tl.exp(x - top)
        count_1 += (key > first).to(tl.int32)
        count_2 += (key > second).to(tl.int32)
        count_3 += (key > third).to(tl.int32)
        mass_1 += tl.where(key > first, mass, 0.0)
        mass_2 += tl.where(key > second, mass, 0.0)
        mass_3 += tl.where(key > third, mass, 0.0)
    return (
        tl.sum(tl.sum(count_1, 1), 0), tl.sum(tl.sum(count_2, 1), 0), tl.sum(tl.sum(count_3, 1), 0),
        tl.sum(tl.sum(mass_1, 1), 0), tl.sum(tl.sum(mass_2, 1), 0), tl.sum(tl.sum(mass_3, 1), 0),
    )  # fmt: skip


@triton.jit
def _largest_within(
    row: tl.tensor, temperature: tl.tensor, listed: tl.tensor, end: tl.tensor, vocab: tl.tensor,
    lo: tl.tensor, hi: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """Returns the largest key above ``lo`` and not above ``hi``, or ``lo`` if there is none; and the number of such
    keys."""
    largest = tl.zeros([STEP, GROUP], tl.int32) + lo
    count = tl.zeros([STEP, GROUP], tl.int32)
    for start in range(0, end, STEP):
        _, x = read_groups(row, temperature, listed, start, end, vocab)
        key = key_of(x)
        inside = (key > lo) & (key <= hi)
        largest = tl.where(inside, tl.maximum(key, largest), largest)
        count += inside.to(tl.int32)
    return tl.max(tl.max(largest, 1), 0), tl.sum(tl.sum(count, 1), 0)


@triton.jit
def search(
    row: tl.tensor, temperature: tl.tensor, maxima: tl.tensor, groups: tl.tensor, listed: tl.tensor, end: tl.tensor,
    vocab: tl.tensor, top: tl.tensor, lo: tl.tensor, by_mass: tl.tensor, goal: tl.tensor, PADDED: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Finds the largest key such that the tokens with this key or a larger one reach ``goal``: in probability mass if
    ``by_mass``, else in number. The ``end`` listed groups have all tokens above ``lo``, and these reach ``goal``, apart
    from rounding.

    Returns that key, the mass and the number of tokens above it, the number of tokens with this key, and the number of
    groups that are still listed. ``row``, ``temperature`` and ``vocab`` are as in ``read_groups``; ``maxima`` and
    PADDED as in ``list_groups``; ``top`` is the largest logit.
    """
    hi = key_of(top)
    hi_count = 0
    hi_mass = 0.0
    within = _MAX  # tokens between the bounds, as far as is known
    lo_count = _MAX
    step = 0
    while (hi.to(tl.int64) - lo.to(tl.int64) > 1) & (within > 1):
        # What is cut by mass is often a few tokens near the top.
        near = by_mass & (step == 0)
        first = _between(lo, hi, tl.where(near, 4, 2), step)
        second = _between(lo, hi, tl.where(near, 6, 4), step)
        third = _between(lo, hi, tl.where(near, 7, 6), step)
        count_1, count_2, count_3, mass_1, mass_2, mass_3 = _tally(
            row, temperature, listed, end, vocab, top, first, second, third
        )
        does_1 = tl.where(by_mass, mass_1, count_1.to(tl.float32)) >= goal
        does_2 = tl.where(by_mass, mass_2, count_2.to(tl.float32)) >= goal
        does_3 = tl.where(by_mass, mass_3, count_3.to(tl.float32)) >= goal
        hi = tl.where(does_1, tl.where(does_2, tl.where(does_3, hi, third), second), first)
        hi_count = tl.where(does_1, tl.where(does_2, tl.where(does_3, hi_count, count_3), count_2), count_1)
        hi_mass = tl.where(does_1, tl.where(does_2, tl.where(does_3, hi_mass, mass_3), mass_2), mass_1)
        lo = tl.where(does_3, third, tl.where(does_2, second, tl.where(does_1, first, lo)))
        lo_count = tl.where(does_3, count_3, tl.where(does_2, count_2, tl.where(does_1, count_1, lo_count)))
        within = lo_count - hi_count
        if end > STEP:
            end = list_groups(maxima, groups, lo, listed, PADDED)
        step += 1
    key, ties = _largest_within(row, temperature, listed, end, vocab, lo, hi)
    return key, hi_mass, hi_count, ties, end


@triton.jit
def lowest_of_top(
    maxima: tl.tensor, groups: tl.tensor, top: tl.tensor, wanted: tl.tensor, PADDED: tl.constexpr
) -> tl.tensor:
    """Returns a key that at least ``wanted`` of the groups' maxima exceed, and not many more; LOWEST if there are
    fewer. ``maxima`` and PADDED are as in ``list_groups``; ``top`` is the largest of them."""
    at = tl.arange(0, PADDED)
    values = tl.load(maxima + at, at < groups, other=float("-inf"))
    keys = key_of(values)
    lo = key_of(tl.min(tl.where(keys > LOWEST, values, top), 0)) - 1
    count = tl.sum((keys > lo).to(tl.int32), 0)
    hi = key_of(top)
    enough = count >= wanted
    step = 0
    while enough & (count > wanted + wanted // 4 + 4) & (hi.to(tl.int64) - lo.to(tl.int64) > 1):
        middle = _between(lo, hi, 4, step)
        above = tl.sum((keys > middle).to(tl.int32), 0)
        hi = tl.where(above >= wanted, hi, middle)
        lo = tl.where(above >= wanted, middle, lo)
        count = tl.where(above >= wanted, above, count)
        step += 1
    return tl.where(enough, lo, LOWEST)
