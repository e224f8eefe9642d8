"""The sampling kernels: the first surveys all rows in parts, the second chooses the token of each row.

A choice is a race: the largest of the logits after temperature, cuts and Gumbel noise, which makes it a draw from their
softmax. Of equals the lowest token id wins.
"""

# ruff: noqa: N803 (what is known when a kernel is compiled stands in capitals)
from __future__ import annotations

import triton
import triton.language as tl

from engine.kernels.triton.noise import gumbel, noise_key
from engine.kernels.triton.selection import (
    GROUP,
    LOWEST,
    STEP,
    key_of,
    list_groups,
    lowest_of_top,
    read_groups,
    search,
    value_of,
)

FIELDS = tl.constexpr(9)
"""Numbers of 32 bits that say how a row is drawn, in the order that follows; the last two are the seed."""
ROW = tl.constexpr(0)
KIND = tl.constexpr(1)
TEMPERATURE = tl.constexpr(2)
TOP_K = tl.constexpr(3)
TOP_P = tl.constexpr(4)
LOG_MIN_P = tl.constexpr(5)
POSITION = tl.constexpr(6)
SEED = tl.constexpr(7)
GREEDY = tl.constexpr(0)
FREE = tl.constexpr(1)
CUT = tl.constexpr(2)
_NONE = tl.constexpr(2147483647)


@triton.jit
def _float(field: tl.tensor) -> tl.tensor:
    return tl.load(field).to(tl.float32, bitcast=True)


@triton.jit
def _key(fields: tl.tensor) -> tl.tensor:
    low = tl.load(fields + SEED).to(tl.int64) & 0xFFFFFFFF
    return noise_key((tl.load(fields + SEED + 1).to(tl.int64) << 32) | low, tl.load(fields + POSITION))


@triton.jit
def survey_kernel(
    logits: tl.tensor, settings: tl.tensor, maxima: tl.tensor, tops: tl.tensor, notes: tl.tensor,
    stride: tl.tensor, vocab: tl.tensor, groups: tl.tensor, PART: tl.constexpr,
) -> None:  # fmt: skip
    """Surveys PART groups of one row. Grid (draws, parts). Writes ``tops`` [draws, parts] float32, the largest number
    of the part, and ``notes`` [draws, parts] int32, its token; for rows with cuts, the bits of a float32 instead, the
    sum of exp(x - top). ``maxima`` [draws, groups] float32 is written for rows with cuts only. ``settings`` has FIELDS
    numbers for each draw. ``logits`` has ``vocab`` columns, and rows ``stride`` elements apart; ``groups`` is the
    number of groups of a row."""
    draw = tl.program_id(0)
    part = tl.program_id(1)
    fields = settings + draw * FIELDS
    kind = tl.load(fields + KIND)
    group = part * PART + tl.arange(0, PART)
    columns = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    row = logits + tl.load(fields + ROW).to(tl.int64) * stride
    x = tl.load(row + columns, columns < vocab, other=float("-inf"))
    if kind != GREEDY:
        x = tl.math.div_rn(x, _float(fields + TEMPERATURE))
    place = draw * tl.num_programs(1) + part
    if kind == CUT:
        largest = tl.max(x, 1)
        tl.store(maxima + draw.to(tl.int64) * groups + group, largest, group < groups)
        top = tl.max(largest, 0)
        mass = tl.sum(tl.sum(tl.exp(x - tl.where(top == float("-inf"), 0.0, top)), 1), 0)
        tl.store(tops + place, top)
        tl.store(notes + place, mass.to(tl.int32, bitcast=True))
    else:
        if kind == FREE:
            x += gumbel(_key(fields), columns)
        top = tl.max(tl.max(x, 1), 0)
        tl.store(tops + place, top)
        tl.store(notes + place, tl.min(tl.min(tl.where(x == top, columns, _NONE), 1), 0))


@triton.jit
def _first_bound(
    fields: tl.tensor, maxima: tl.tensor, groups: tl.tensor, vocab: tl.tensor, top: tl.tensor, total: tl.tensor,
    PADDED: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """A key that all tokens are above whose number or mass the cuts go by."""
    top_k = tl.load(fields + TOP_K)
    top_p = _float(fields + TOP_P)
    lo = tl.zeros([], tl.int32) + LOWEST
    if (top_k == vocab) | (top_p >= 1):
        floor = top + _float(fields + LOG_MIN_P)
        if top_p < 1:
            # So far below the largest all others together are less than what top_p leaves. A tenth is for rounding.
            floor = tl.maximum(floor, top + tl.log((1.0 - top_p) * total / vocab.to(tl.float32)) - 0.1)
        lo = tl.maximum(key_of(floor), LOWEST + 1) - 1
    # Top-p goes by the mass of all that top-k leaves, so that nothing but top-k may bound what is read for both.
    if top_k <= groups:
        lo = tl.maximum(lo, lowest_of_top(maxima, groups, top, top_k, PADDED))
    return lo


@triton.jit
def _cut(
    row: tl.tensor, fields: tl.tensor, maxima: tl.tensor, listed: tl.tensor, vocab: tl.tensor, groups: tl.tensor,
    top: tl.tensor, total: tl.tensor, PADDED: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """What top-k, top-p and min-p leave, in this order: all above a key, and the first so many of those at it, of how
    many; and how many groups are listed for it."""
    temperature = _float(fields + TEMPERATURE)
    top_k = tl.load(fields + TOP_K)
    top_p = _float(fields + TOP_P)
    lo = _first_bound(fields, maxima, groups, vocab, top, total, PADDED)
    end = list_groups(maxima, groups, lo, listed, PADDED)
    cut = lo
    kept = 0
    ties = 0
    for stage in range(2):
        by_mass = stage == 1
        if tl.where(by_mass, top_p < 1, top_k < vocab):
            goal = tl.where(by_mass, top_p * total, top_k.to(tl.float32))
            at, mass, above, equal, end = search(
                row, temperature, maxima, groups, listed, end, vocab, top, lo, by_mass, goal, PADDED
            )
            each = tl.exp(value_of(at) - top)
            missing = tl.where(by_mass, tl.ceil((goal - mass) / each), goal - above.to(tl.float32))
            most = tl.where(by_mass & (at == cut) & (top_k < vocab), kept, equal)
            kept = tl.minimum(tl.maximum(missing, 1.0), most.to(tl.float32)).to(tl.int32)
            ties = equal
            cut = at
            total = mass + kept.to(tl.float32) * each
            lo = tl.maximum(lo, cut - 1)
    least = key_of(top + _float(fields + LOG_MIN_P))
    if least > cut:
        cut = least - 1
        kept = 0
        ties = 0
    return cut, kept, ties, end


@triton.jit
def _race(
    row: tl.tensor, fields: tl.tensor, listed: tl.tensor, end: tl.tensor, vocab: tl.tensor,
    cut: tl.tensor, kept: tl.tensor, ties: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """The winner among what a cut has left."""
    temperature = _float(fields + TEMPERATURE)
    noise = _key(fields)
    best = tl.full([STEP, GROUP], float("-inf"), tl.float32)
    token = tl.full([STEP, GROUP], _NONE, tl.int32)
    seen = 0
    for start in range(0, end, STEP):
        columns, x = read_groups(row, temperature, listed, start, end, vocab)
        key = key_of(x)
        equal = (key == cut).to(tl.int32)
        stays = key > cut
        if kept == ties:
            stays = stays | ((equal > 0) & (kept > 0))
        else:
            here = tl.sum(equal, 1)
            rank = seen + (tl.cumsum(here, 0) - here)[:, None] + tl.cumsum(equal, 1)
            stays = stays | ((equal > 0) & (rank <= kept))
            seen += tl.sum(here, 0)
        x = tl.where(stays, x + gumbel(noise, columns), float("-inf"))
        token = tl.where(x > best, columns, token)
        best = tl.maximum(best, x)
    first = tl.max(tl.max(best, 1), 0)
    return tl.min(tl.min(tl.where(best == first, token, _NONE), 1), 0)


@triton.jit
def settle_kernel(
    logits: tl.tensor, settings: tl.tensor, maxima: tl.tensor, listed: tl.tensor, tops: tl.tensor, notes: tl.tensor,
    chosen: tl.tensor, stride: tl.tensor, vocab: tl.tensor, groups: tl.tensor, parts: tl.tensor,
    CUTS: tl.constexpr, PARTS: tl.constexpr, PADDED: tl.constexpr,
) -> None:  # fmt: skip
    """Chooses the token of one row from the results of the survey, and writes it to ``chosen`` [draws] int64. Grid
    (draws). ``listed`` [draws, groups] int32 is work space. PARTS and PADDED are powers of two of at least the numbers
    of parts and groups. CUTS: some rows may have cuts (top-k, top-p, min-p). The other arguments are those of
    ``survey_kernel``."""
    draw = tl.program_id(0)
    fields = settings + draw * FIELDS
    part = tl.arange(0, PARTS)
    top_of = tl.load(tops + draw * parts + part, part < parts, other=float("-inf"))
    top = tl.max(top_of, 0)
    note = tl.load(notes + draw * parts + part, part < parts, other=0)
    token = tl.min(tl.where((top_of == top) & (part < parts), note, _NONE), 0)
    if CUTS and tl.load(fields + KIND) == CUT:
        row = logits + tl.load(fields + ROW).to(tl.int64) * stride
        maxima += draw.to(tl.int64) * groups
        listed += draw.to(tl.int64) * groups
        mass = tl.where(part < parts, note.to(tl.float32, bitcast=True), 0.0)
        total = tl.sum(mass * tl.exp(top_of - tl.where(top == float("-inf"), 0.0, top)), 0)
        cut, kept, ties, end = _cut(row, fields, maxima, listed, vocab, groups, top, total, PADDED)
        token = _race(row, fields, listed, end, vocab, cut, kept, ties)
    # A row without a number has no winner, but nobody may be sent beyond its end.
    tl.store(chosen + draw, tl.minimum(token, vocab - 1).to(tl.int64))
