"""From a checkpoint to ModelWeights: named, fused and reordered as the model's family declares."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from engine.model.checkpoint import Checkpoint
from engine.model.family import FAMILIES
from engine.model.names import TensorNames
from engine.model.rope import head_order
from engine.model.spec import ExpertSpec, LayerSpec, ModelSpec
from engine.model.weights import ExpertWeights, LayerWeights, MLPWeights, ModelWeights, NormWeights


def load_weights(directory: Path, spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> ModelWeights:
    """Raises FileNotFoundError without safetensors, KeyError for a missing tensor, ValueError for a wrong shape."""
    with Checkpoint(directory, device) as checkpoint:
        return _Loader(checkpoint, spec, FAMILIES[spec.architecture].names, dtype).model()


class _Loader:
    """Reads one checkpoint, once."""

    def __init__(self, checkpoint: Checkpoint, spec: ModelSpec, names: TensorNames, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self._spec = spec
        self._names = names
        self._dtype = dtype
        found = (root for root in names.roots if f"{root}{names.embedding}.weight" in checkpoint)
        self._root = next(found, names.roots[0])

    def model(self) -> ModelWeights:
        spec, names = self._spec, self._names
        embedding = self._tensor(f"{self._root}{names.embedding}.weight", spec.vocab_size, spec.hidden_size)
        positions = f"{self._root}{names.positions}.weight"
        head = f"{names.head}.weight"
        return ModelWeights(
            embedding=embedding,
            positions=self._tensor(positions, spec.context_length, spec.hidden_size) if names.positions else None,
            layers=tuple(self._layer(*numbered) for numbered in enumerate(spec.layers)),
            norm=self._norm(f"{self._root}{names.norm}"),
            head=embedding if spec.tied_embeddings else self._tensor(head, spec.vocab_size, spec.hidden_size),
        )

    def _layer(self, number: int, layer: LayerSpec) -> LayerWeights:
        spec, names = self._spec, self._names
        prefix = self._root + names.layer.format(number)
        width = spec.num_heads * spec.head_dim
        order = self._row_order(layer)
        qkv_rows = width + 2 * spec.num_kv_heads * spec.head_dim
        qkv = self._fused(prefix, names.qkv, qkv_rows, spec.hidden_size)
        qkv_bias = self._bias(prefix, names.qkv, qkv_rows) if spec.qkv_bias else None
        return LayerWeights(
            before_attention=self._optional_norm(prefix, names.before_attention),
            qkv=qkv if order is None else qkv[order],
            qkv_bias=qkv_bias if qkv_bias is None or order is None else qkv_bias[order],
            head_norm=self._head_norm(prefix),
            output=self._fused(prefix, (names.output,), spec.hidden_size, width),
            output_bias=self._bias(prefix, (names.output,), spec.hidden_size) if spec.output_bias else None,
            after_attention=self._optional_norm(prefix, names.after_attention),
            before_mlp=self._optional_norm(prefix, names.before_mlp),
            mlp=self._mlp(prefix) if layer.experts is None else self._experts(prefix, layer.experts),
            after_mlp=self._optional_norm(prefix, names.after_mlp),
        )

    def _mlp(self, prefix: str) -> MLPWeights:
        spec, names = self._spec, self._names
        rows = spec.intermediate_size * (2 if spec.gated else 1)
        return MLPWeights(
            gate_up=self._fused(prefix, names.gate_up, rows, spec.hidden_size),
            gate_up_bias=self._bias(prefix, names.gate_up, rows) if spec.mlp_bias else None,
            down=self._fused(prefix, (names.down,), spec.hidden_size, spec.intermediate_size),
            down_bias=self._bias(prefix, (names.down,), spec.hidden_size) if spec.mlp_bias else None,
        )

    def _experts(self, prefix: str, experts: ExpertSpec) -> ExpertWeights:
        names, hidden, inner = self._names, self._spec.hidden_size, experts.intermediate_size

        def stacked(parts: tuple[str, ...], rows: int, columns: int) -> Tensor:
            """Into one tensor expert by expert: all of them twice would be most of the model twice."""
            whole = torch.empty(experts.count, rows, columns, dtype=self._dtype, device=self._checkpoint.device)
            for expert in range(experts.count):
                whole[expert] = self._fused(prefix, tuple(part.format(expert) for part in parts), rows, columns)
            return whole

        return ExpertWeights(
            spec=experts,
            router=self._fused(prefix, (names.router,), experts.count, hidden),
            gate_up=stacked(names.expert_gate_up, 2 * inner, hidden),
            down=stacked((names.expert_down,), hidden, inner),
        )

    def _head_norm(self, prefix: str) -> Tensor | None:
        """For each head its weights: one vector's, repeated, or its part of a vector over all heads."""
        spec, names = self._spec, self._names
        if spec.head_norm == "none":
            return None
        query = self._norm(prefix + names.query_norm).weight
        key = self._norm(prefix + names.key_norm).weight
        if spec.head_norm == "head":
            query, key = query.expand(spec.num_heads, -1), key.expand(spec.num_kv_heads, -1)
        return torch.cat((query.view(spec.num_heads, -1), key.view(spec.num_kv_heads, -1)))

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
        return None if name is None else self._norm(prefix + name)

    def _norm(self, name: str) -> NormWeights:
        norm = self._spec.norm
        # Added before the weight is rounded: near zero, where a stored w - 1 lies, numbers are finer than near one.
        weight = self._checkpoint.tensor(f"{name}.weight", torch.float32) + norm.offset
        bias = self._checkpoint.tensor(f"{name}.bias", self._dtype) if norm.kind == "layer" else None
        return NormWeights(weight if norm.wide else weight.to(self._dtype), bias)

    def _fused(self, prefix: str, parts: tuple[str, ...], rows: int, columns: int) -> Tensor:
        """The matrices ``parts`` [rows, columns], one below the other."""
        found = [self._checkpoint.tensor(f"{prefix}{part}.weight", self._dtype) for part in parts]
        found = [part.t().contiguous() for part in found] if self._names.transposed else found
        return _checked(_joined(found), prefix + parts[0], rows, columns)

    def _bias(self, prefix: str, parts: tuple[str, ...], rows: int) -> Tensor:
        found = [self._checkpoint.tensor(f"{prefix}{part}.bias", self._dtype) for part in parts]
        return _checked(_joined(found), prefix + parts[0], rows)

    def _tensor(self, name: str, *shape: int) -> Tensor:
        return _checked(self._checkpoint.tensor(name, self._dtype), name, *shape)


def _joined(parts: list[Tensor]) -> Tensor:
    """One below the other; a single part is not copied, and so stays mapped from its file."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _checked(tensor: Tensor, name: str, *shape: int) -> Tensor:
    if tensor.shape != shape:
        raise ValueError(f"{name} is {tuple(tensor.shape)}, config.json says {shape}")
    return tensor
