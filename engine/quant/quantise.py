"""Quantises weight matrices to eight or four bits.

Numbers are rounded to the nearest, without calibration. In eight bits all weights of an output share a scale. In four
bits 32 weights do, so that an outlier affects only its group (as in llama.cpp's Q4_0), and each scale is the best of a
few candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from math import prod
from typing import overload

import torch
from torch import Tensor

from engine.config import WeightDTypeName
from engine.model.weights import ExpertWeights, LayerWeights, Matrix, MLPWeights, ModelWeights, NormWeights, plain
from engine.quant.blocks import BlockMatrix, rounded
from engine.quant.format import FP8, GROUP, INT4, INT8, W8A8, WeightFormat
from engine.quant.grouped import GroupedMatrix
from engine.quant.matrix import PackedMatrix, QuantisedMatrix, packed
from engine.quant.packed_groups import PackedGroups, packed_groups

CHUNK = 1 << 22  # weights that are worked on at a time: several copies in float32 of a whole matrix would be much
# Four bits hold one number more below zero than above: the largest of a group becomes that one, or somewhat less, which
# cuts it off and brings the others nearer.
SHARES = (1.0, 0.93, 0.86)


@dataclass(frozen=True, slots=True)
class WeightFormats:
    """The weight formats of a model: one for its layers, and one for its output layer (``head``), which is more
    sensitive."""

    layers: WeightFormat
    head: WeightFormat


FORMATS = {
    "int8": WeightFormats(INT8, INT8),
    "int4": WeightFormats(INT4, INT8),
    "w8a8": WeightFormats(W8A8, INT8),
    "fp8": WeightFormats(FP8, INT8),
}
"""A head reads few rows, and is as small with inputs as they are."""


def weight_formats(name: WeightDTypeName) -> WeightFormats | None:
    """Returns the formats for the setting ``weight_dtype``; None if weights are not quantised."""
    return FORMATS.get(name)


def keeps(matrix: Matrix, form: WeightFormat) -> bool:
    """Returns whether a matrix is stored in no more bits than ``form`` has, so that rounding it to ``form`` would lose
    accuracy and save nothing. Formats that round the inputs of products need numbers of their own."""
    own = isinstance(matrix, BlockMatrix) and matrix.exact and matrix.bits <= form.bits
    return own and form.number == torch.int8 and not form.rounds_inputs


def quantise(weight: Tensor, form: WeightFormat) -> QuantisedMatrix:
    """Returns ``weight`` [outputs, inputs] quantised to ``form``. Raises ValueError if the number of inputs is no
    multiple of the group size."""
    outputs, inputs = weight.shape
    group = form.group or inputs
    if inputs % group:
        raise ValueError(f"weight_dtype {form.name} takes groups of {group} inputs, a matrix has {inputs}")
    parts = [_rounded(part.float().reshape(-1, group), form) for part in weight.split(max(1, CHUNK // inputs))]
    numbers = torch.cat([numbers for numbers, _ in parts]).view(outputs, inputs)
    return QuantisedMatrix(numbers, torch.cat([scales for _, scales in parts]).view(outputs, -1))


def rounded_model(weights: ModelWeights, formats: WeightFormats) -> ModelWeights:
    """Returns the model with its weights quantised and dequantised again, in its own dtype, for kernels that support no
    quantised matrices. The routers of experts are not changed, nor a BlockMatrix.

    The inputs of products are not rounded, even if the format rounds inputs.
    """

    def through(weight: Matrix, form: WeightFormat) -> Matrix:
        if isinstance(weight, BlockMatrix):
            return weight
        whole = plain(weight)
        return quantise(whole, form).dequantised(whole.dtype)

    return _each_matrix(weights, formats, weights.embedding.device, through)


def packed_model(
    weights: ModelWeights, formats: WeightFormats, device: torch.device | None = None, *, release: bool = False
) -> ModelWeights:
    """Returns the model with packed matrices on ``device`` (None: the embedding's device), for kernels that read these.

    Matrices are moved, quantised and packed one after the other: a model loaded to the CPU needs on the GPU only the
    memory of the packed model and of one matrix. With ``release`` the memory of each matrix is freed once it is packed,
    and ``weights`` must not be used afterwards. Experts keep their dtype, with quantised and dequantised weights. A
    PackedGroups stays as it is.
    """
    place = device or weights.embedding.device

    def through(weight: Matrix, form: WeightFormat) -> PackedMatrix | PackedGroups:
        if isinstance(weight, PackedGroups):
            return weight
        whole = plain(weight)
        done = packed(quantise(whole.to(place), form), form)
        if release and whole is not weights.embedding:
            whole.data = whole.new_empty(0)
        return done

    return _moved(_each_matrix(weights, formats, place, through), place)


def packed_groups_model(weights: ModelWeights) -> ModelWeights:
    """Returns the model with GroupedMatrix and BlockMatrix packed on the device of the embedding, for kernels that read
    PackedGroups; other matrices stay. They are grouped, moved and packed one after the other.

    Raises ValueError for factors that float16 does not hold.
    """

    def through(matrix: Matrix) -> Matrix:
        if isinstance(matrix, BlockMatrix):
            matrix = matrix.grouped()
        return packed_groups(matrix, weights.embedding.device) if isinstance(matrix, GroupedMatrix) else matrix

    def mlp(parts: MLPWeights | ExpertWeights) -> MLPWeights | ExpertWeights:
        if isinstance(parts, ExpertWeights):
            return parts
        return replace(parts, gate_up=through(parts.gate_up), down=through(parts.down))

    layers = tuple(
        replace(layer, qkv=through(layer.qkv), output=through(layer.output), mlp=mlp(layer.mlp))
        for layer in weights.layers
    )
    return replace(weights, layers=layers, head=through(weights.head))


def dequantised_model(weights: ModelWeights, formats: WeightFormats | None = None) -> ModelWeights:
    """Returns the model with GroupedMatrix and BlockMatrix replaced by tensors of its dtype, for kernels that support
    neither. With ``formats`` the matrices stay that these formats keep (``keeps``). Raises TypeError for a tied head of
    another quantised type."""
    dtype, device = weights.embedding.dtype, weights.embedding.device

    def through(matrix: Matrix, form: WeightFormat | None) -> Matrix:
        if not isinstance(matrix, GroupedMatrix | BlockMatrix) or (form is not None and keeps(matrix, form)):
            return matrix
        return matrix.dequantised(dtype).to(device)

    def whole(matrix: Matrix) -> Matrix:
        return through(matrix, None if formats is None else formats.layers)

    def mlp(parts: MLPWeights | ExpertWeights) -> MLPWeights | ExpertWeights:
        if isinstance(parts, ExpertWeights):
            return parts
        return replace(parts, gate_up=whole(parts.gate_up), down=whole(parts.down))

    layers = tuple(
        replace(layer, qkv=whole(layer.qkv), output=whole(layer.output), mlp=mlp(layer.mlp)) for layer in weights.layers
    )
    head = through(weights.head, None if formats is None else formats.head)
    looked_up = weights.embeds_by_head and not isinstance(head, GroupedMatrix | BlockMatrix)
    return replace(weights, embedding=plain(head) if looked_up else weights.embedding, layers=layers, head=head)


def regrouped_model(weights: ModelWeights) -> ModelWeights:
    """Returns the model with all its matrices in groups of 32, for kernels that need all or none: if most are, the
    plain ones are rounded to eight bits. A tied embedding is then looked up in the head.

    The model is returned unchanged if half of its matrices or more are plain, since it is then meant to be of plain
    weights, or if one cannot be in groups: those of experts, and matrices whose number of inputs is no multiple of 32.
    """
    matrices = [matrix for _, matrix in weights.matrices()]
    plains = [matrix for matrix in matrices if isinstance(matrix, Tensor)]
    if not plains or 2 * len(plains) >= len(matrices):
        return weights
    if any(matrix.dim() != 2 or matrix.shape[1] % GROUP for matrix in plains):
        return weights

    def through(matrix: Matrix) -> Matrix:
        return rounded(matrix) if isinstance(matrix, Tensor) else matrix

    def layer(each: LayerWeights) -> LayerWeights:
        assert isinstance(each.mlp, MLPWeights)
        mlp = replace(each.mlp, gate_up=through(each.mlp.gate_up), down=through(each.mlp.down))
        return replace(each, qkv=through(each.qkv), output=through(each.output), mlp=mlp)

    tied = weights.head is weights.embedding
    return replace(
        weights,
        embedding=weights.embedding.new_empty(0, weights.embedding.shape[1]) if tied else weights.embedding,
        layers=tuple(map(layer, weights.layers)),
        head=through(weights.head),
    )


def plain_bytes(weights: ModelWeights) -> int:
    """Returns the number of bytes of the matrices that are plain tensors."""
    return sum(matrix.nbytes for _, matrix in weights.matrices() if isinstance(matrix, Tensor))


def quantised_numbers(weights: ModelWeights) -> int:
    """Returns the number of weights in the matrices that are a GroupedMatrix or BlockMatrix."""
    found = (matrix for _, matrix in weights.matrices() if isinstance(matrix, GroupedMatrix | BlockMatrix))
    return sum(prod(matrix.shape) for matrix in found)


def quantised_bytes(weights: ModelWeights) -> int:
    """Returns the number of bytes of the matrices that are a GroupedMatrix or BlockMatrix."""
    found = (matrix for _, matrix in weights.matrices() if isinstance(matrix, GroupedMatrix | BlockMatrix))
    return sum(matrix.nbytes for matrix in found)


def packed_groups_bytes(weights: ModelWeights) -> int:
    """Returns the number of bytes of the matrices that are a PackedGroups."""
    return sum(matrix.nbytes for _, matrix in weights.matrices() if isinstance(matrix, PackedGroups))


def regrouped_bytes(weights: ModelWeights) -> int:
    """Returns the number of bytes, in the file, of the matrices whose numbers ``BlockMatrix.grouped`` rounds."""
    found = (matrix for _, matrix in weights.matrices() if isinstance(matrix, BlockMatrix))
    return sum(matrix.nbytes for matrix in found if not matrix.exact)


def _each_matrix(
    weights: ModelWeights,
    formats: WeightFormats,
    place: torch.device,
    through: Callable[[Matrix, WeightFormat], Matrix],
) -> ModelWeights:
    """The model with its matrices put ``through``; of experts, what rounding leaves of them, on ``place``."""

    def layer(whole: LayerWeights) -> LayerWeights:
        qkv, output = through(whole.qkv, formats.layers), through(whole.output, formats.layers)
        return replace(whole, qkv=qkv, output=output, mlp=mlp(whole.mlp))

    def mlp(whole: MLPWeights | ExpertWeights) -> MLPWeights | ExpertWeights:
        if isinstance(whole, MLPWeights):
            gate_up, down = through(whole.gate_up, formats.layers), through(whole.down, formats.layers)
            return replace(whole, gate_up=gate_up, down=down)
        return replace(whole, gate_up=left(whole.gate_up), down=left(whole.down))

    def left(stack: Tensor) -> Tensor:
        return torch.stack([quantise(one.to(place), formats.layers).dequantised(one.dtype) for one in stack])

    layers = tuple(layer(whole) for whole in weights.layers)
    return replace(weights, layers=layers, head=through(weights.head, formats.head))


@overload
def _moved(whole: ModelWeights, device: torch.device) -> ModelWeights: ...
@overload
def _moved(whole: object, device: torch.device) -> object: ...
def _moved(whole: object, device: torch.device) -> object:
    """All tensors inside of it on ``device``."""
    if isinstance(whole, Tensor):
        return whole.to(device)
    if isinstance(whole, tuple):
        return tuple(_moved(part, device) for part in whole)
    if isinstance(whole, ModelWeights | LayerWeights | MLPWeights | ExpertWeights | NormWeights):
        return replace(whole, **{part.name: _moved(getattr(whole, part.name), device) for part in fields(whole)})
    return whole


def _rounded(groups: Tensor, form: WeightFormat) -> tuple[Tensor, Tensor]:
    """Numbers [groups, inputs] and scales [groups] of float32 ``groups``."""
    best, least = None, None
    for scales in _candidates(groups, form):
        wide = scales.float().unsqueeze(-1)
        numbers = (groups / wide).nan_to_num_(nan=0.0).clamp_(-form.lowest, form.highest)
        numbers = numbers.round_() if form.number == torch.int8 else numbers.to(form.number).float()
        lost = (numbers * wide - groups).square_().sum(-1)
        if best is None or least is None:
            best, least = (numbers, scales), lost
        else:
            better = lost < least
            best = (torch.where(better.unsqueeze(-1), numbers, best[0]), torch.where(better, scales, best[1]))
            least = torch.minimum(least, lost)
    assert best is not None
    return best[0].to(form.number), best[1]


def _candidates(groups: Tensor, form: WeightFormat) -> Iterator[Tensor]:
    """Scales [groups] to try. What has no numbers but zero has the scale zero."""
    if form.lowest == form.highest:
        yield (groups.abs().amax(-1) / form.highest).to(form.scale)
        return
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True)).squeeze(-1)
    for share in SHARES:
        yield (largest * share / -form.lowest).to(form.scale)
