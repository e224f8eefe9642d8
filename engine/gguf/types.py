"""The tensor types of GGUF files, with the number of weights and bytes per block (ggml.h, ggml-common.h)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorType:
    """The number format of a tensor. A row of a tensor is a whole number of blocks."""

    code: int  # as in the file
    name: str  # llama.cpp's
    weights: int  # of a block
    nbytes: int  # of a block

    @property
    def quantised(self) -> bool:
        """Whether the weights of a block share a scale."""
        return self.weights > 1


F32 = TensorType(0, "F32", 1, 4)
F16 = TensorType(1, "F16", 1, 2)
BF16 = TensorType(30, "BF16", 1, 2)
Q4_0 = TensorType(2, "Q4_0", 32, 18)
Q4_1 = TensorType(3, "Q4_1", 32, 20)
Q5_0 = TensorType(6, "Q5_0", 32, 22)
Q5_1 = TensorType(7, "Q5_1", 32, 24)
Q8_0 = TensorType(8, "Q8_0", 32, 34)
Q2_K = TensorType(10, "Q2_K", 256, 84)
Q3_K = TensorType(11, "Q3_K", 256, 110)
Q4_K = TensorType(12, "Q4_K", 256, 144)
Q5_K = TensorType(13, "Q5_K", 256, 176)
Q6_K = TensorType(14, "Q6_K", 256, 210)
IQ4_NL = TensorType(20, "IQ4_NL", 32, 18)
IQ4_XS = TensorType(23, "IQ4_XS", 256, 136)

_ALL = (F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS)
TENSOR_TYPES = {each.code: each for each in _ALL}
"""Those that can be read, by code."""
