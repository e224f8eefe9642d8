"""``GGUFCheckpoint``: reads the tensors of a GGUF file by name, for model/loader.py: rows in Hugging Face's order, each
expert as a tensor of its own."""

from __future__ import annotations

import logging
import re
from typing import Self

import torch
from torch import Tensor

from engine.gguf.configuration import layout_of
from engine.gguf.dequantise import dequantised
from engine.gguf.errors import GGUFError
from engine.gguf.file import GGUFFile, StoredTensor
from engine.model.spec import ModelSpec, UnsupportedModelError
from engine.quant.blocks import BlockMatrix, BlockRows

logger = logging.getLogger(__name__)

_EXPERT = re.compile(r"(?P<stack>.*_exps)\.(?P<expert>\d+)\.weight$")
_INTERLEAVED = re.compile(r"blk\.\d+\.attn_(?P<which>[qk])\.(weight|bias)$")
_UNUSED = re.compile(r"rope_freqs\.weight|rope_factors_(long|short)\.weight|blk\.\d+\.attn_rot_embd\.weight")
"""Tensors that the decoder does not need. gguf/configuration.py reads the factors of rotary frequencies."""


class GGUFCheckpoint:
    """The weights of a GGUF file as a ``TensorSource``. ``spec`` is the spec of the model in the file."""

    def __init__(self, file: GGUFFile, spec: ModelSpec, device: torch.device) -> None:
        self._file = file
        self._layout = layout_of(file)
        self._heads = {"q": spec.num_heads, "k": spec.num_kv_heads}
        self._read: set[str] = set()
        self._packed_bytes = 0  # in the file, of quantised tensors that were unpacked
        self._unpacked_bytes = 0  # and in memory
        self.device = device

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Says in the log what the tensors take that were unpacked since nothing multiplies them as they are stored:
        experts, an embedding beside an output layer of its own, and all of a model that is split over ranks."""
        self._read.clear()
        if self._packed_bytes:
            mib = 1024**2
            line = "%s: %.0f MiB of quantised weights are unpacked as they are read, and take %.0f MiB"
            logger.info(line, self._file.path.name, self._packed_bytes / mib, self._unpacked_bytes / mib)

    def __contains__(self, name: str) -> bool:
        return name in self._file.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of the tensor ``name``. Raises KeyError if there is none."""
        expert = _EXPERT.match(name)
        return self._stored(expert["stack"] + ".weight").shape[1:] if expert else self._stored(name).shape

    def tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        """Returns the tensor ``name``, dequantised to ``dtype``. Raises KeyError if there is none, and GGUFError for a
        damaged one."""
        return self._unpacked(self._rows(name), dtype).view(self.shape(name)).to(self.device)

    def part(self, name: str, dtype: torch.dtype, *kept: slice) -> Tensor:
        """Returns a part of the tensor ``name``, dequantised to ``dtype``. ``kept`` has a slice for each dimension.
        Raises KeyError if there is none, and GGUFError for a damaged one."""
        if len(self.shape(name)) == 1:
            return self.tensor(name, dtype)[kept]
        rows = self._rows(name)
        return self._unpacked(BlockRows(rows.type, rows.raw[kept[0]]), dtype)[:, *kept[1:]].to(self.device)

    def blocks(self, names: list[str]) -> BlockMatrix | None:
        """Returns the matrices ``names``, stacked by rows, in their quantised form; None if one of them is not
        quantised. Raises KeyError for an unknown name, and GGUFError for a damaged tensor."""
        if not all(self._stored(name).type.quantised for name in names):
            return None
        return BlockMatrix.stacked([self._rows(name) for name in names])

    def check_all_read(self) -> None:
        """Raises UnsupportedModelError if the file holds a tensor that was not read. The architecture in the file then
        differs from the one that the engine knows, and answers would be wrong."""
        left = sorted(name for name in self._file.tensors if name not in self._read and not _UNUSED.fullmatch(name))
        if left:
            raise UnsupportedModelError(
                f"{self._file.path.name}: the tensor {left[0]!r} has no place in {self._layout.architecture}"
            )

    def _unpacked(self, rows: BlockRows, dtype: torch.dtype) -> Tensor:
        found = dequantised(rows.raw, rows.type, dtype)
        if rows.type.quantised:
            self._packed_bytes += rows.raw.nbytes
            self._unpacked_bytes += found.nbytes
        return found

    def _rows(self, name: str) -> BlockRows:
        """The rows of a tensor or of one expert, in Hugging Face's order."""
        expert = _EXPERT.match(name)
        stored = self._stored(expert["stack"] + ".weight" if expert else name)
        raw = stored.raw
        if expert:
            if len(stored.shape) != 3 or int(expert["expert"]) >= stored.shape[0]:
                raise GGUFError(f"the tensor {stored.name!r} has the shape {stored.shape}, without {name!r}")
            raw = raw.view(stored.shape[0], -1, raw.shape[1])[int(expert["expert"])]
        order = self._row_order(name, stored)
        if order is not None and len(stored.shape) == 1:  # a bias is one row
            values = raw.view(len(order), -1)[order]
            return BlockRows(stored.type, values.reshape(1, -1))
        return BlockRows(stored.type, raw if order is None else raw[order])

    def _row_order(self, name: str, stored: StoredTensor) -> Tensor | None:
        """Where rows of queries and keys come from, if they are stored in pairs: row 2 i of a head is the i-th of its
        first half, row 2 i + 1 of its second. None for others."""
        found = _INTERLEAVED.match(name) if self._layout.interleaved else None
        if found is None:
            return None
        rows = stored.shape[0]
        heads = self._heads[found["which"]]
        if rows % (2 * heads):
            raise GGUFError(f"the tensor {name!r} has {rows} rows, no pairs in each of {heads} heads")
        return torch.arange(rows).view(heads, -1, 2).transpose(1, 2).flatten()

    def _stored(self, name: str) -> StoredTensor:
        if name not in self._file.tensors:
            raise KeyError(f"{self._file.path.name} has no tensor {name!r}")
        self._read.add(name)
        return self._file.tensors[name]
