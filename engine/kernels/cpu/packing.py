"""Packs a model's weights into the layouts that the C code reads."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.cpu import library
from engine.kernels.cpu.library import BFLOAT16, FLOAT32, FP8, Layer, Linear, Model, Screen
from engine.kv.format import KVFormat, KVPages
from engine.kv.shape import GroupShape, layers_by_group
from engine.model.rope import rope_tables
from engine.model.spec import ModelSpec
from engine.model.weights import LayerWeights, Matrix, MLPWeights, ModelWeights, NormWeights, grouped, plain
from engine.quant.blocks import BlockMatrix
from engine.quant.format import GROUP, INT4, INT8, WeightFormat
from engine.quant.grouped import GroupedMatrix
from engine.quant.matrix import QuantisedMatrix
from engine.quant.quantise import WeightFormats, quantise

PANEL = 16  # outputs of a panel, as in src/panel.h
TILE_INPUTS = 32  # of a tile register of bfloat16, likewise
MAX_HEAD_DIM = 256  # as in src/attention.c
SCREENED_BYTES = 64 << 20  # of an output layer that is larger than caches are
TYPES = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16}
WEIGHT_TYPES = {INT8: library.INT8, INT4: library.INT4}
GROUPED_TYPES = {4: library.GROUPED4, 8: library.GROUPED8}
CACHE_TYPES = {**TYPES, torch.int8: library.INT8, torch.float8_e4m3fn: FP8}


def unsupported(
    spec: ModelSpec, dtype: torch.dtype, form: KVFormat, block_size: int, rounded: WeightFormats | None
) -> str | None:
    """Returns the reason why the compiled kernels cannot run a model, or None if they can."""
    whole = {
        "hidden_size": spec.hidden_size,
        "head_dim": spec.head_dim,
        "intermediate_size": spec.intermediate_size,
        "block_size": block_size,
    }
    inputs = {
        "hidden_size": spec.hidden_size,
        "num_heads x head_dim": spec.num_heads * spec.head_dim,
        "intermediate_size": spec.intermediate_size,
    }
    reasons = {
        f"dtype {dtype}": dtype not in TYPES,
        f"kv_dtype {form.name}": form.number not in CACHE_TYPES,
        f"weight_dtype {rounded and rounded.layers.name}": rounded is not None and rounded.layers not in WEIGHT_TYPES,
        f"{spec.norm.kind} norm": spec.norm.kind != "rms",
        "learned positions": spec.learned_positions,
        f"head norm over the {spec.head_norm}": spec.head_norm == "projection",
        "an MLP without a gate": not spec.gated,
        f"activation {spec.activation}": spec.activation not in ("silu", "gelu_tanh"),
        "experts": any(layer.experts for layer in spec.layers),
        f"heads of more than {MAX_HEAD_DIM}": spec.head_dim > MAX_HEAD_DIM,
        **{f"{name} {size}, no multiple of {PANEL}": size % PANEL != 0 for name, size in whole.items()},
        **{
            f"{rounded.layers.name} weights with {name} {size}, no multiple of {GROUP}": size % GROUP != 0
            for name, size in inputs.items()
            if rounded is not None
        },
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def panels(weight: Tensor, *, tiled: bool = False) -> Tensor:
    """Returns ``weight`` [outputs, inputs] in panels of 16 outputs. The last panel is padded with zeros.

    float32: [panels, inputs, 16]; bfloat16: [panels, inputs / 2, 16, 2], inputs rounded up to 32 if ``tiled``.
    """
    outputs, inputs = weight.shape
    count = -(-outputs // PANEL)
    more = -inputs % TILE_INPUTS if tiled and weight.dtype == torch.bfloat16 else 0
    inputs += more
    padded = F.pad(weight, (0, more, 0, count * PANEL - outputs)).view(count, PANEL, inputs)
    if weight.dtype == torch.bfloat16:
        return padded.view(count, PANEL, inputs // 2, 2).permute(0, 2, 1, 3).contiguous()
    return padded.permute(0, 2, 1).contiguous()


def coded_panels(matrix: QuantisedMatrix, form: WeightFormat) -> tuple[Tensor, Tensor]:
    """Returns the numbers and scales of a matrix in the layout of src/integers.h. The last panel is padded with zeros.

    int8: uint8 [panels, inputs / 4, 16, 4] and float32 [panels, 16]; int4: uint8 [panels, inputs / 8, 16, 4] and
    bfloat16 [panels, inputs / GROUP, 16].
    """
    numbers = _padded(matrix.numbers).flatten(0, 1)
    scales = _padded(matrix.scales).transpose(1, 2).contiguous()
    if form is INT8:
        return _words(numbers.view(torch.uint8) ^ 128), scales.view(-1, PANEL)
    return _words((numbers + form.lowest).view(torch.uint8), halves=True), scales


def grouped_panels(matrix: GroupedMatrix) -> tuple[Tensor, Tensor]:
    """Returns the numbers, and the scales with minimums, of a matrix in the layout of src/integers.h. The last panel is
    padded with zeros.

    Eight bits: uint8 [panels, inputs / 4, 16, 4]; four bits: uint8 [panels, inputs / 8, 16, 4]. Scales and minimums:
    float16 [panels, inputs / GROUP, 2, 16].
    """
    factors = [_padded(each).transpose(1, 2) for each in (matrix.scales, matrix.minimums)]
    return _words(matrix.numbers, halves=matrix.bits == 4), torch.stack(factors, 2)


def _padded(matrix: Tensor) -> Tensor:
    """``matrix`` [outputs, width] as [panels, 16, width], zeros after the last output."""
    rest = -len(matrix) % PANEL
    padded = F.pad(matrix, (0, 0, 0, rest)) if rest else matrix
    return padded.view(-1, PANEL, matrix.shape[1])


def _words(numbers: Tensor, *, halves: bool = False) -> Tensor:
    """uint8 ``numbers`` [outputs, inputs] in panels of words of four, [panels, words, 16, 4]; with ``halves`` in words
    of eight, of which the last four are in the upper halves of bytes. Moves four bytes at a time."""
    words = numbers.contiguous().view(torch.int32)
    if halves:
        pairs = words.unflatten(1, (-1, 2))
        words = pairs[..., 0] | pairs[..., 1] << 4
    return _padded(words).transpose(1, 2).contiguous().unsqueeze(-1).view(torch.uint8)


def can_screen(spec: ModelSpec, head: Tensor, rounded: WeightFormats | None) -> bool:
    """Returns whether screening finds the largest logit faster: whether the output layer is too large for the
    processor's caches. A model with a logit cap cannot be screened: the cap can make different logits equal, and the
    first of equals must be chosen."""
    return (
        rounded is None
        and spec.logit_cap is None
        and spec.hidden_size % GROUP == 0
        and head.nbytes >= SCREENED_BYTES
        and bool(head.isfinite().all())
    )


def error_bounds(weight: Tensor, matrix: QuantisedMatrix) -> tuple[Tensor, Tensor]:
    """Returns two tensors, float32 [outputs]: for each output of ``weight`` [outputs, inputs], an upper bound on the
    Euclidean norm of its difference from ``matrix``, and the norm of its row of ``matrix``. The first includes the
    rounding errors of the float32 sums of products with both matrices, relative to the norm of the inputs (Higham 2002,
    section 3.1)."""
    inputs = weight.shape[1]
    rows = max(1, (1 << 22) // inputs)
    errors, sizes = [], []
    for exact, numbers, scales in zip(
        *(each.split(rows) for each in (weight, matrix.numbers, matrix.scales)), strict=True
    ):
        rough = numbers.float() * scales.float()
        size = rough.norm(dim=-1)
        error = (exact.float() - rough).norm(dim=-1)
        errors.append(error + 2 * inputs * torch.finfo(torch.float32).eps * (size + error))
        sizes.append(size)
    return torch.cat(errors) * (1 + 1e-4), torch.cat(sizes) * (1 + 1e-4)


class PackedModel:
    """The C structure of a model and the memory that it points to.

    ``cache`` has the KV pages of each layer; the layout of keys and values inside a block is the C code's own.
    ``tiled``: the C code multiplies in tile registers (AMX).
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: ModelWeights,
        form: KVFormat,
        shapes: Sequence[GroupShape],
        context: int,
        rounded: WeightFormats | None,
        *,
        tiled: bool = False,
    ) -> None:
        self._kept: list[object] = []
        self._tiled = tiled
        self._rounded = rounded
        self.groups = layers_by_group(spec)
        block_size = shapes[0].block_size
        dtype, device = weights.embedding.dtype, weights.embedding.device
        self.cache = [
            # A page more than the pool owns: it is never written, and stands for what is no longer seen.
            KVPages.zeros(form, shapes[group].blocks + 1, 2 * spec.num_kv_heads, block_size, spec.head_dim, device)
            for group in self.groups
        ]
        self.model = Model(
            layers=self._layers(spec, weights.layers, context),
            count=spec.num_layers,
            embedding=None if weights.embeds_by_head else self._keep(weights.embedding.contiguous()),
            final_norm=self._norm(weights.norm),
            head_weights=self._linear(weights.head, None, None if rounded is None else rounded.head),
            hidden=spec.hidden_size,
            heads=spec.num_heads,
            kv_heads=spec.num_kv_heads,
            head=spec.head_dim,
            inner=spec.intermediate_size,
            page=block_size,
            epsilon=spec.norm.eps,
            embedding_scale=_rounded(spec.embedding_scale, dtype),
            score_cap=spec.score_cap or 0.0,
            logit_cap=spec.logit_cap or 0.0,
            type=TYPES[dtype],
            cache_type=CACHE_TYPES[form.number],
            gelu=int(spec.activation == "gelu_tanh"),
            coded=int(rounded is not None or grouped(weights)),
            screen=self._screen(spec, weights.head),
        )

    def _layers(self, spec: ModelSpec, weights: Sequence[LayerWeights], context: int) -> ctypes.Array[Layer]:
        """Returns the layers, with the rotary tables of ``context`` positions."""
        tables = [[self._floats(t) for t in rope_tables(k.rope, spec.head_dim, context)] for k in spec.kinds if k.rope]
        layers = (Layer * spec.num_layers)()
        for number, (layer, shape) in enumerate(zip(weights, spec.layers, strict=True)):
            cos, sin = tables[shape.kind]
            window = spec.kinds[shape.kind].window or 0
            layers[number] = self._layer(layer, cos, sin, self.cache[number], self.groups[number], window, shape.scale)
        self._kept.append(layers)
        return layers

    def _layer(
        self, layer: LayerWeights, cos: int, sin: int, cache: KVPages, group: int, window: int, scale: float
    ) -> Layer:
        assert isinstance(layer.mlp, MLPWeights)
        form = None if self._rounded is None else self._rounded.layers
        return Layer(
            before_attention=self._norm(layer.before_attention),
            after_attention=self._norm(layer.after_attention),
            before_mlp=self._norm(layer.before_mlp),
            after_mlp=self._norm(layer.after_mlp),
            head_norm=None if layer.head_norm is None else self._floats(layer.head_norm),
            qkv=self._linear(layer.qkv, layer.qkv_bias, form),
            output=self._linear(layer.output, layer.output_bias, form),
            gate_up=self._linear(layer.mlp.gate_up, layer.mlp.gate_up_bias, form),
            down=self._linear(layer.mlp.down, layer.mlp.down_bias, form),
            cos=cos,
            sin=sin,
            cache=cache.numbers.data_ptr(),
            scales=None if cache.scales is None else cache.scales.data_ptr(),
            group=group,
            window=window,
            scale=scale,
        )

    def _linear(self, matrix: Matrix, bias: Tensor | None, form: WeightFormat | None) -> Linear:
        offsets = None if bias is None else self._floats(bias)
        outputs, inputs = matrix.shape
        if isinstance(matrix, BlockMatrix):
            matrix = matrix.grouped()
        if isinstance(matrix, GroupedMatrix):
            numbers, scales = grouped_panels(matrix)
            kind = GROUPED_TYPES[matrix.bits]
            return Linear(self._keep(numbers), self._keep(scales), offsets, inputs, outputs, kind)
        weight = plain(matrix)
        if form is None:
            packed = self._keep(panels(weight, tiled=self._tiled))
            return Linear(packed, None, offsets, inputs, outputs, TYPES[weight.dtype])
        numbers, scales = coded_panels(quantise(weight, form), form)
        return Linear(self._keep(numbers), self._keep(scales), offsets, inputs, outputs, WEIGHT_TYPES[form])

    def _screen(self, spec: ModelSpec, weight: Matrix) -> Screen:
        if not isinstance(weight, Tensor) or not can_screen(spec, weight, self._rounded):
            return Screen()
        matrix = quantise(weight, INT8)
        errors, sizes = error_bounds(weight, matrix)
        numbers, scales = coded_panels(matrix, INT8)
        outputs, inputs = weight.shape
        rest = (0, -outputs % PANEL)
        linear = Linear(self._keep(numbers), self._keep(scales), None, inputs, outputs, library.INT8)
        return Screen(linear, self._keep(F.pad(errors, rest, value=math.inf)), self._keep(F.pad(sizes, rest)))

    def _norm(self, norm: NormWeights | None) -> int | None:
        return None if norm is None else self._floats(norm.weight)

    def _floats(self, tensor: Tensor) -> int:
        return self._keep(tensor.float().contiguous())

    def _keep(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        return ctypes.c_void_p(tensor.data_ptr()).value or 0


def _rounded(scale: float | None, dtype: torch.dtype) -> float:
    """As the checkpoint's dtype has it: Gemma's scale was rounded in training."""
    return 1.0 if scale is None else float(torch.tensor(scale, dtype=dtype))
