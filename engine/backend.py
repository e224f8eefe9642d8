"""Who runs the steps: the compiled kernels where they can, torch everywhere else."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from engine.config import EngineConfig
from engine.kernels.cpu.compiler import CompilerError
from engine.kernels.cpu.packing import unsupported
from engine.kernels.cpu.runner import CompiledRunner
from engine.kv.format import BlockCopy, format_of
from engine.kv.shape import GroupShape
from engine.model.decoder import Decoder
from engine.quant.weights import rounded_model, weight_formats
from engine.result import StepResult
from engine.runner import Runner
from engine.scheduler.plan import Chunk

logger = logging.getLogger(__name__)


class StepRunner(Protocol):
    """A model, its KV cache, and a way to run a step on them."""

    def run(self, chunks: Iterable[Chunk]) -> StepResult:
        """Computes the chunks, at most one of each sequence."""
        ...

    def scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        """Fills blocks of each group of layers with zeros."""
        ...

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        """Copies the contents of blocks, in this order."""
        ...


def make_runner(
    model: Decoder[Any], config: EngineConfig, shapes: Sequence[GroupShape], context_length: int
) -> StepRunner:
    """The runner that ``config.kernels`` asks for.

    Raises CompilerError or ValueError if that is ``compiled`` and cannot be; ``auto`` then takes torch and says why in
    the log.
    """
    rounded = weight_formats(config.weight_dtype)
    if config.kernels == "torch" or config.device != "cpu":
        return _on_torch(model, config, shapes, context_length)
    dtype = model.weights.embedding.dtype
    reason = unsupported(model.spec, dtype, format_of(config.kv_dtype, dtype), config.block_size, rounded)
    if reason is None:
        try:
            return CompiledRunner(model.spec, model.weights, config, shapes, context_length)
        except (CompilerError, OSError) as error:
            if config.kernels == "compiled":
                raise
            reason = str(error)
    elif config.kernels == "compiled":
        raise ValueError(f"kernels: the compiled ones do not support {reason}")
    logger.warning("%s runs on torch; the compiled kernels do not serve it: %s", config.model, reason)
    return _on_torch(model, config, shapes, context_length)


def _on_torch(model: Decoder[Any], config: EngineConfig, shapes: Sequence[GroupShape], context_length: int) -> Runner:
    rounded = weight_formats(config.weight_dtype)
    if rounded is not None:
        model = model.with_weights(rounded_model(model.weights, rounded))
    return Runner(model, config, shapes, context_length)
