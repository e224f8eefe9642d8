"""Samples the next token of every row on the device, with the same result as ``engine.decode.sampling``. Typical-p is
not supported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton
from torch import Tensor

from engine.api import SamplingParams
from engine.decode.sampling import MIN_TEMPERATURE, Draw
from engine.kernels.triton import race
from engine.kernels.triton.selection import GROUP
from engine.kernels.triton.variants import Variant

_PART = 32
"""Groups of a program of the survey: 16 logits for each thread."""
_SURVEY_WARPS = 4
_SETTLE_WARPS = 16  # a row that is cut has but one program
_SMALL_WARPS = 1  # nothing to settle but which part was best

_LAYOUT = np.dtype(
    {
        "names": ["row", "kind", "temperature", "top_k", "top_p", "log_min_p", "position", "seed"],
        "formats": ["i4", "i4", "f4", "i4", "f4", "f4", "i4", "u8"],
    }
)
"""How a row is drawn, as ``race`` reads it."""


@dataclass(frozen=True, slots=True)
class DrawSettings:
    """The sampling settings of rows: ``fields`` [draws, race.FIELDS] int32 in the kernels' layout, and whether any row
    has cuts, for which another variant of the kernel is compiled."""

    fields: Tensor
    cuts: bool

    def to(self, device: torch.device) -> DrawSettings:
        """Returns the settings on ``device``, with one transfer."""
        return DrawSettings(self.fields.to(device, non_blocking=True), self.cuts)


def can_draw(params: SamplingParams) -> bool:
    """Returns whether the kernels support all settings in ``params``."""
    return params.temperature == 0 or params.typical_p >= 1


def settings_of(draws: Sequence[Draw], rows: Sequence[int], vocab: int) -> DrawSettings:
    """Returns the settings of ``draws``, on the CPU. ``rows`` has the row of the logits for each draw; several draws
    may use one row. Each draw must be supported (``can_draw``)."""
    params = [draw.params for draw in draws]
    fields = np.zeros(len(draws), _LAYOUT)
    fields["row"] = rows
    fields["temperature"] = [max(each.temperature, MIN_TEMPERATURE) for each in params]
    fields["top_k"] = [each.top_k if 0 < each.top_k < vocab else vocab for each in params]
    fields["top_p"] = [each.top_p for each in params]
    min_p = np.array([each.min_p for each in params], np.float32)
    fields["log_min_p"] = torch.from_numpy(min_p).log().numpy()
    fields["position"] = [draw.position for draw in draws]
    fields["seed"] = np.array([draw.seed & (2**64 - 1) for draw in draws], np.uint64)
    greedy = np.array([each.temperature == 0 for each in params], np.bool_)
    cut = ~greedy & ((fields["top_k"] < vocab) | (fields["top_p"] < 1) | (min_p > 0))
    fields["kind"] = np.select([greedy, cut], [race.GREEDY.value, race.CUT.value], race.FREE.value)
    return DrawSettings(torch.from_numpy(fields.view(np.int32).reshape(-1, race.FIELDS.value)), bool(cut.any()))


def sample_tokens(logits: Tensor, settings: DrawSettings) -> Tensor:
    """Returns the sampled token ids, int64 [draws], on the device of ``logits`` [rows, vocab] float32 and ``settings``.
    It does not wait for the device. The token of a row without a finite logit is arbitrary."""
    draws, vocab = settings.fields.shape[0], logits.shape[1]
    device = logits.device
    groups = triton.cdiv(vocab, GROUP.value)
    parts = triton.cdiv(groups, _PART)
    chosen = torch.empty(draws, dtype=torch.int64, device=device)
    if not draws or vocab == 1:
        return chosen.zero_()
    tops = torch.empty((draws, parts), dtype=torch.float32, device=device)
    notes = torch.empty((draws, parts), dtype=torch.int32, device=device)
    # Without cuts these are not touched.
    room = (draws, groups if settings.cuts else 0)
    maxima = torch.empty(room, dtype=torch.float32, device=device)
    listed = torch.empty(room, dtype=torch.int32, device=device)
    race.survey_kernel[(draws, parts)](
        logits, settings.fields, maxima, tops, notes, logits.stride(0), vocab, groups,
        PART=_PART, num_warps=_SURVEY_WARPS,
    )  # fmt: skip
    race.settle_kernel[(draws,)](
        logits, settings.fields, maxima, listed, tops, notes, chosen, logits.stride(0), vocab, groups, parts,
        CUTS=settings.cuts, PARTS=triton.next_power_of_2(parts), PADDED=triton.next_power_of_2(groups),
        num_warps=_SETTLE_WARPS if settings.cuts else _SMALL_WARPS,
    )  # fmt: skip
    return chosen


def variants() -> Iterator[Variant]:
    """Yields the variants to compile ahead, for the vocabularies of Llama 3.1, Qwen3 and Gemma 3."""
    shared = {"logits": "*fp32", "settings": "*i32", "maxima": "*fp32", "tops": "*fp32", "notes": "*i32"}
    shared |= {"stride": "i32", "vocab": "i32", "groups": "i32"}
    yield Variant(
        "survey",
        race.survey_kernel,
        shared,
        {"PART": _PART},
        aligned=frozenset(("stride", "vocab")),
        warps=_SURVEY_WARPS,
    )
    for name, vocab in {"llama": 128_256, "qwen": 151_936, "gemma": 262_208}.items():
        groups = triton.cdiv(vocab, GROUP.value)
        padded = {
            "PARTS": triton.next_power_of_2(triton.cdiv(groups, _PART)),
            "PADDED": triton.next_power_of_2(groups),
        }
        for cuts in (False, True):
            yield Variant(
                f"settle {name}{' with cuts' if cuts else ''}",
                race.settle_kernel,
                shared | {"listed": "*i32", "chosen": "*i64", "parts": "i32"},
                padded | {"CUTS": cuts},
                aligned=frozenset(("stride", "vocab")),
                warps=_SETTLE_WARPS if cuts else _SMALL_WARPS,
            )
