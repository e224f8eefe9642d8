"""Loads a checkpoint into ModelWeights. Tensors are named, fused and reordered as the model's family declares. All
weights or one rank's share are loaded."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.model.names import TensorNames
from engine.model.rope import head_order
from engine.model.source import ModelSource, TensorSource
from engine.model.spec import ExpertSpec, LayerSpec, ModelSpec
from engine.model.weights import ExpertWeights, LayerWeights, Matrix, MLPWeights, ModelWeights, NormWeights, plain
from engine.parallel.share import WHOLE, Cut, Share
from engine.quant.blocks import BlockMatrix


def load_weights(source: ModelSource, dtype: torch.dtype, device: torch.device, share: Share = WHOLE) -> ModelWeights:
    """Returns the weights of the ``share`` of the model in ``source``. Matrices that are quantised in ``source`` stay
    quantised if the share is the whole model; all others are in ``dtype``.

    Raises FileNotFoundError without weights, KeyError for a missing tensor, ValueError for a wrong shape or for a model
    that cannot be split.
    """
    with source.checkpoint(device) as checkpoint:
        weights = _Loader(checkpoint, source.spec, source.names, dtype, share).model()
        if share == WHOLE:
            checkpoint.check_all_read()
    return weights


class _Loader:
    """Reads the weights of one model from its checkpoint. It is used once."""

    def __init__(
        self, checkpoint: TensorSource, spec: ModelSpec, names: TensorNames, dtype: torch.dtype, share: Share
    ) -> None:
        self._checkpoint = checkpoint
        self._whole = spec
        self._spec = share.spec(spec)  # of what is loaded
        self._share = share
        self._names = names
        self._dtype = dtype
        found = (root for root in names.roots if f"{root}{names.embedding}.weight" in checkpoint)
        self._root = next(found, names.roots[0])

    def model(self) -> ModelWeights:
        spec, names = self._spec, self._names
        head = self._stored_head()
        if spec.tied_embeddings and head is not None:  # tokens are looked up in the head
            embedding = torch.empty(0, spec.hidden_size, dtype=self._dtype, device=self._checkpoint.device)
        else:
            embedding = self._vocabulary(f"{self._root}{names.embedding}.weight")
        positions = f"{self._root}{names.positions}.weight"
        return ModelWeights(
            embedding=embedding,
            positions=self._tensor(positions, spec.context_length, spec.hidden_size) if names.positions else None,
            layers=tuple(self._layer(*numbered) for numbered in enumerate(spec.layers)),
            norm=self._norm(f"{self._root}{names.norm}", spec.hidden_size),
            head=head or (embedding if spec.tied_embeddings else self._vocabulary(f"{names.head}.weight")),
        )

    def _stored_head(self) -> BlockMatrix | None:
        """The output layer, if it is quantised; one that is tied to the embedding is the embedding."""
        names, tied = self._names, self._spec.tied_embeddings
        name = f"{self._root}{names.embedding}.weight" if tied else f"{names.head}.weight"
        return self._blocks([name], (self._whole.vocab_size, self._whole.hidden_size))

    def _layer(self, number: int, layer: LayerSpec) -> LayerWeights:
        spec, names, share, whole = self._spec, self._names, self._share, self._whole
        prefix = self._root + names.layer.format(number)
        order = self._row_order(layer)
        hidden, rows = Cut.whole(spec.hidden_size), share.qkv(whole)
        qkv = self._matrix(prefix, names.qkv, rows, hidden)
        qkv_bias = self._bias(prefix, names.qkv, rows) if spec.qkv_bias else None
        return LayerWeights(
            before_attention=self._optional_norm(prefix, names.before_attention),
            qkv=qkv if order is None else _reordered(qkv, order),
            qkv_bias=qkv_bias if qkv_bias is None or order is None else qkv_bias[order],
            head_norm=self._head_norm(prefix),
            output=self._matrix(prefix, (names.output,), hidden, share.attended(whole)),
            output_bias=self._summed_bias(prefix, names.output) if spec.output_bias else None,
            after_attention=self._optional_norm(prefix, names.after_attention),
            before_mlp=self._optional_norm(prefix, names.before_mlp),
            mlp=self._mlp(prefix) if layer.experts is None else self._experts(prefix, number, layer.experts),
            after_mlp=self._optional_norm(prefix, names.after_mlp),
        )

    def _mlp(self, prefix: str) -> MLPWeights:
        spec, names, inner = self._spec, self._names, self._whole.intermediate_size
        rows, hidden = self._share.gate_up(inner, spec.gated), Cut.whole(spec.hidden_size)
        return MLPWeights(
            gate_up=self._matrix(prefix, names.gate_up, rows, hidden),
            gate_up_bias=self._bias(prefix, names.gate_up, rows) if spec.mlp_bias else None,
            down=self._matrix(prefix, (names.down,), hidden, self._share.inner(inner)),
            down_bias=self._summed_bias(prefix, names.down) if spec.mlp_bias else None,
        )

    def _experts(self, prefix: str, number: int, experts: ExpertSpec) -> ExpertWeights:
        names, hidden = self._names, Cut.whole(self._spec.hidden_size)
        whole = self._whole.layers[number].experts or experts
        inner, gate_up = (
            self._share.inner(whole.intermediate_size),
            self._share.gate_up(whole.intermediate_size, gated=True),
        )

        def stacked(parts: tuple[str, ...], rows: Cut, columns: Cut) -> Tensor:
            """Returns one tensor of all experts. It is filled expert by expert, since a copy of all at once would need
            twice the memory. The shape of the first is checked before there is memory for all."""
            each = (tuple(part.format(expert) for part in parts) for expert in range(experts.count))
            first = self._fused(prefix, next(each), rows, columns)
            every = first.new_empty(experts.count, *first.shape)
            every[0] = first
            for place, expert in enumerate(each, 1):
                every[place] = self._fused(prefix, expert, rows, columns)
            return every

        return ExpertWeights(
            spec=experts,
            router=self._fused(prefix, (names.router,), Cut.whole(experts.count), hidden),
            gate_up=stacked(names.expert_gate_up, gate_up, hidden),
            down=stacked((names.expert_down,), hidden, inner),
        )

    def _head_norm(self, prefix: str) -> Tensor | None:
        """For each head its weights: one vector's, repeated, or its part of a vector over all heads."""
        spec, names = self._spec, self._names
        if spec.head_norm == "none":
            return None
        heads, kv_heads = (1, 1) if spec.head_norm == "head" else (self._whole.num_heads, self._whole.num_kv_heads)
        query = self._norm(prefix + names.query_norm, heads * spec.head_dim).weight
        key = self._norm(prefix + names.key_norm, kv_heads * spec.head_dim).weight
        if spec.head_norm == "head":
            query, key = query.expand(spec.num_heads, -1), key.expand(spec.num_kv_heads, -1)
            return torch.cat((query, key))
        queries, keys = self._share.heads(self._whole), self._share.kv_heads(self._whole)
        return torch.cat((query.view(-1, spec.head_dim)[queries], key.view(-1, spec.head_dim)[keys]))

    def _row_order(self, layer: LayerSpec) -> Tensor | None:
        """Where the rows of qkv come from, if its heads are reordered: those of queries and keys, not of values."""
        spec = self._spec
        within = head_order(spec.kinds[layer.kind].rope, spec.head_dim)
        if within is None:
            return None
        rows = torch.arange((spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim).view(-1, spec.head_dim)
        rotated = spec.num_heads + spec.num_kv_heads
        return torch.cat((rows[:rotated, within], rows[rotated:])).flatten().to(self._checkpoint.device)

    def _optional_norm(self, prefix: str, name: str | None) -> NormWeights | None:
        return None if name is None else self._norm(prefix + name, self._spec.hidden_size)

    def _norm(self, name: str, size: int) -> NormWeights:
        norm = self._spec.norm
        stored = _checked(self._checkpoint.tensor(f"{name}.weight", torch.float32), f"{name}.weight", size)
        # Added before the weight is rounded: near zero, where a stored w - 1 lies, numbers are finer than near one.
        weight = stored + norm.offset
        bias = self._tensor(f"{name}.bias", size) if norm.kind == "layer" else None
        return NormWeights(weight if norm.wide else weight.to(self._dtype), bias)

    def _vocabulary(self, name: str) -> Tensor:
        """One row for each token, filled up with zeros to as many as every rank has."""
        rows = self._share.vocabulary(self._whole)
        found = self._read([name], rows, Cut.whole(self._whole.hidden_size))
        missing = self._share.vocabulary_rows(self._whole) - found.shape[0]
        return F.pad(found, (0, 0, 0, missing)) if missing else found

    def _matrix(self, prefix: str, parts: tuple[str, ...], rows: Cut, columns: Cut) -> Matrix:
        """As ``_fused``, but quantised ones of a whole model stay as they are stored."""
        blocks = self._blocks([f"{prefix}{part}.weight" for part in parts], (rows.size, columns.size))
        return self._fused(prefix, parts, rows, columns) if blocks is None else blocks

    def _blocks(self, names: list[str], expected: tuple[int, int]) -> BlockMatrix | None:
        """The quantised matrices ``names``, one below the other; None if they are not quantised, or to be split."""
        blocks = self._checkpoint.blocks(names) if self._share == WHOLE else None
        if blocks is not None and blocks.shape != expected:
            raise ValueError(f"{names[0]} is {blocks.shape}, the model's configuration says {expected}")
        return blocks

    def _fused(self, prefix: str, parts: tuple[str, ...], rows: Cut, columns: Cut) -> Tensor:
        """The matrices ``parts``, one below the other; of the columns one piece is kept."""
        return self._read([f"{prefix}{part}.weight" for part in parts], rows, columns, self._names.transposed)

    def _bias(self, prefix: str, parts: tuple[str, ...], rows: Cut) -> Tensor:
        return self._read([f"{prefix}{part}.bias" for part in parts], rows)

    def _summed_bias(self, prefix: str, part: str) -> Tensor | None:
        """Of a product that is summed over ranks; the first one adds it."""
        return self._bias(prefix, (part,), Cut.whole(self._spec.hidden_size)) if self._share.rank == 0 else None

    def _read(self, names: list[str], rows: Cut, columns: Cut | None = None, transposed: bool = False) -> Tensor:
        """What is kept of the tensors ``names`` [rows, columns], or [rows], one below the other; ``transposed`` if they
        are stored [columns, rows]."""
        shapes = [self._checkpoint.shape(name)[:: -1 if transposed else 1] for name in names]
        expected = (rows.size,) if columns is None else (rows.size, columns.size)
        total = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        if total != expected:
            raise ValueError(f"{names[0]} is {total}, the model's configuration says {expected}")
        for name, shape in zip(names, shapes, strict=True):
            if shape[1:] != expected[1:]:
                raise ValueError(f"{name} is {shape}, the model's configuration says {expected[1:]} for each row")
        others = () if columns is None else columns.pieces
        pieces: list[Tensor] = []
        for piece in rows.pieces:
            first = 0
            for name, shape in zip(names, shapes, strict=True):
                start, stop = max(piece.start - first, 0), min(piece.stop - first, shape[0])
                if start < stop:
                    kept = (slice(start, stop), *others)[:: -1 if transposed else 1]
                    pieces.append(self._checkpoint.part(name, self._dtype, *kept))
                first += shape[0]
        return _joined([piece.t().contiguous() for piece in pieces] if transposed else pieces)

    def _tensor(self, name: str, *shape: int) -> Tensor:
        return _checked(self._checkpoint.tensor(name, self._dtype), name, *shape)


def _reordered(matrix: Matrix, order: Tensor) -> Matrix:
    """Row i of the result is row ``order[i]``."""
    if isinstance(matrix, BlockMatrix):
        return matrix.reordered(order)
    return plain(matrix)[order]


def _joined(parts: list[Tensor]) -> Tensor:
    """One below the other; a single part is not copied, and so stays mapped from its file."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _checked(tensor: Tensor, name: str, *shape: int) -> Tensor:
    if tensor.shape != shape:
        raise ValueError(f"{name} is {tuple(tensor.shape)}, the model's configuration says {shape}")
    return tensor
