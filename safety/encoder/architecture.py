"""``Architecture``: the sizes of an encoder, and the names of its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


class UnsupportedEncoderError(ValueError):
    """The files are malformed, or describe an encoder that this package does not run."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """The sizes of a BERT encoder (Devlin et al., 2018, arXiv:1810.04805): post-LayerNorm, absolute positions, GELU by
    the error function. ``max_tokens`` is the number of positions, which bounds a sequence."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    max_tokens: int
    norm_epsilon: float = 1e-12

    @classmethod
    def from_hugging_face(cls, config: Mapping[str, Any]) -> Architecture:
        """Returns the architecture of a ``config.json`` of Hugging Face's ``BertModel``.

        Raises UnsupportedEncoderError for another model type, activation or kind of positions, and for a missing size.
        """
        expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
        for key, value in expected.items():
            if config.get(key, value) != value:
                raise UnsupportedEncoderError(f"{key} must be {value}, not {config[key]}")
        try:
            return cls(
                layers=config["num_hidden_layers"],
                hidden=config["hidden_size"],
                heads=config["num_attention_heads"],
                intermediate=config["intermediate_size"],
                vocabulary=config["vocab_size"],
                max_tokens=config["max_position_embeddings"],
                norm_epsilon=config.get("layer_norm_eps", 1e-12),
            )
        except KeyError as error:
            raise UnsupportedEncoderError(f"config.json has no {error}") from error

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yields the name and the shape of each tensor, by the names of Hugging Face's ``BertModel``."""
        hidden, wide = self.hidden, self.intermediate
        yield "embeddings.word_embeddings.weight", (self.vocabulary, hidden)
        yield "embeddings.position_embeddings.weight", (self.max_tokens, hidden)
        yield from _norm("embeddings.LayerNorm", hidden)
        for layer in range(self.layers):
            prefix = f"encoder.layer.{layer}"
            for name in ("query", "key", "value"):
                yield from _linear(f"{prefix}.attention.self.{name}", hidden, hidden)
            yield from _linear(f"{prefix}.attention.output.dense", hidden, hidden)
            yield from _norm(f"{prefix}.attention.output.LayerNorm", hidden)
            yield from _linear(f"{prefix}.intermediate.dense", wide, hidden)
            yield from _linear(f"{prefix}.output.dense", hidden, wide)
            yield from _norm(f"{prefix}.output.LayerNorm", hidden)


def _linear(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)
