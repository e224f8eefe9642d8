"""Loads a model and chooses its runner: Triton kernels on CUDA, compiled C kernels on a CPU where they support the
model, torch otherwise."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch

from engine.config import EngineConfig
from engine.kernels.cpu.compiler import CompilerError
from engine.kernels.cpu.packing import unsupported
from engine.kernels.cpu.runner import CompiledRunner
from engine.kernels.interface import Kernels
from engine.kernels.reference import ReferenceKernels
from engine.kv.format import BlockCopy, format_of
from engine.kv.planner import KVPlan
from engine.kv.shape import GroupShape, shapes_of
from engine.memory import available_bytes
from engine.model.decoder import Decoder
from engine.model.location import locate
from engine.model.source import ModelSource, open_model
from engine.model.weights import grouped
from engine.parallel.exchange import ALONE, Exchange
from engine.parallel.share import Share
from engine.quant.quantise import (
    WeightFormats,
    dequantised_model,
    packed_groups_bytes,
    packed_groups_model,
    packed_model,
    plain_bytes,
    quantised_bytes,
    quantised_numbers,
    regrouped_bytes,
    regrouped_model,
    rounded_model,
    weight_formats,
)
from engine.runner import Runner
from engine.scheduler.step_plan import Chunk
from engine.step_result import StepResult

logger = logging.getLogger(__name__)


class StepRunner(Protocol):
    """Runs the steps of one model, and owns the tensors of its KV cache (vLLM's model runner)."""

    @property
    def kernels(self) -> str:
        """The kernels that run the steps: ``torch``, ``triton``, ``compiled``, or ``compiled-amx`` with AMX tiles
        (``compiled-amx-emulated`` if they are emulated)."""
        ...

    def run(self, chunks: Iterable[Chunk]) -> StepResult:
        """Runs the model on ``chunks``, which are one step, at most one per sequence. Returns the logits, or the
        tokens if the runner samples, in the order of ``StepResult.sampled``."""
        ...

    def scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        """Fills KV blocks with zeros. ``blocks`` has a list of block ids for each group of layers."""
        ...

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        """Copies the contents of KV blocks, in the given order."""
        ...

    def check_health(self) -> None:
        """Raises EngineDeadError if no step can be run any more. Called after an operation has failed, since it waits
        for the device."""
        ...


def load_model(config: EngineConfig, source: ModelSource, exchange: Exchange = ALONE) -> Decoder[Any]:
    """Checks that the KV cache fits into memory, then loads and returns this rank's shard of the model in ``source``.

    Raises MemoryPlanError if it does not fit, and ValueError if the model cannot be split over the ranks or the kernels
    cannot run. Raises the errors of ``locate`` and ``open_model`` for the draft model, and those of ``Decoder.load``.
    """
    dtype = getattr(torch, config.dtype)
    device = torch.device(config.device)
    form = format_of(config.kv_dtype, dtype)
    spec = Share(exchange.rank, exchange.ranks).spec(source.spec)
    plan = KVPlan(spec, form, shapes_of(spec, config))
    available = available_bytes(device)
    if available is not None:
        if config.draft_model is not None and exchange.rank == 0:
            available -= KVPlan(open_model(locate(config.draft_model)).spec, form, plan.shapes[:1]).total_bytes
        plan.check(available // exchange.ranks if device.type == "cpu" else available)
    model = Decoder.load(source, dtype, device, kernels_of(config, device), exchange)
    logger.info("%s: KV cache of %d tokens, %.1f MiB", config.model, plan.tokens, plan.total_bytes / 1024**2)
    return model


def uses_triton(config: EngineConfig) -> bool:
    """Returns whether the Triton kernels run the model."""
    return config.kernels == "triton" or (config.kernels == "auto" and config.device == "cuda")


def kernels_of(config: EngineConfig, device: torch.device) -> Kernels[Any]:
    """Returns the kernels for the operations between a decoder's matrix products, such as attention. Raises ValueError
    for Triton's kernels without a GPU."""
    if not uses_triton(config):
        return ReferenceKernels()
    # Imported here because Triton is not installed everywhere and is slow to import.
    from engine.kernels.triton.kernels import TritonKernels

    return TritonKernels(device, config.deterministic)


def make_runner(
    model: Decoder[Any], config: EngineConfig, shapes: Sequence[GroupShape], context_length: int
) -> StepRunner:
    """Returns the runner that ``config.kernels`` asks for. It takes over ``model`` and may release its weights when it
    rounds or packs them, so the caller must not use ``model`` afterwards.

    Raises CompilerError, OSError or ValueError if ``compiled`` was asked for and is not possible, and ValueError if the
    Triton kernels do not support the model. With ``auto`` torch runs the model instead, and a warning says why.
    """
    if uses_triton(config):
        return _on_triton(model, config, shapes, context_length)
    if config.kernels == "torch" or config.device != "cpu" or config.tensor_parallel > 1:
        return _on_torch(model, config, shapes, context_length)
    rounded = weight_formats(config.weight_dtype)
    dtype = model.weights.embedding.dtype
    form = format_of(config.kv_dtype, dtype)
    reason = unsupported(model.spec, dtype, form, config.block_size, rounded)
    if reason is None:
        try:
            weights = _for_compiled(model, config, rounded).weights
            return CompiledRunner(model.spec, weights, config, shapes, context_length)
        except (CompilerError, OSError) as error:
            if config.kernels == "compiled":
                raise
            reason = str(error)
    elif config.kernels == "compiled":
        raise ValueError(f"kernels: the compiled ones do not support {reason}")
    logger.warning("%s runs on torch; the compiled kernels do not serve it: %s", config.model, reason)
    return _on_torch(model, config, shapes, context_length)


def _for_compiled(model: Decoder[Any], config: EngineConfig, formats: WeightFormats | None) -> Decoder[Any]:
    """Returns the model as the compiled kernels multiply it: all matrices in groups, or none of those that ``formats``
    do not keep. Says in the log what is rounded or unpacked for that."""
    if formats is None:
        plain = plain_bytes(model.weights)
        model = model.with_weights(regrouped_model(model.weights))
        if odd := plain - plain_bytes(model.weights):
            line = (
                "%s: %.0f MiB of plain weights are rounded to 8 bits in groups of 32, as the other matrices have groups"
            )
            logger.info(line, config.model, odd / 1024**2)
    if formats is not None or not grouped(model.weights):
        model = _unpacked(model, config, formats)
    _say_regrouped(model, config)
    return model


def _say_regrouped(model: Decoder[Any], config: EngineConfig) -> None:
    """Says in the log how much is rounded because its groups are smaller than those of the kernels."""
    if regrouped := regrouped_bytes(model.weights):
        mib = regrouped / 1024**2
        logger.info("%s: %.0f MiB of weights in groups of 16 are rounded to 8 bits in groups of 32", config.model, mib)


def _in_groups(model: Decoder[Any], config: EngineConfig) -> Decoder[Any]:
    """Returns the model with its matrices that are quantised in groups packed for the Triton kernels, and says so in
    the log. A model without such matrices is returned unchanged."""
    stored = quantised_bytes(model.weights)
    if not stored:
        return model
    packed = model.with_weights(packed_groups_model(model.weights))
    taken, mib = packed_groups_bytes(packed.weights), 1024**2
    line = "%s: %.0f MiB of quantised weights stay packed in groups of 32, in which they take %.0f MiB"
    logger.info(line, config.model, stored / mib, taken / mib)
    return packed


def _unpacked(model: Decoder[Any], config: EngineConfig, formats: WeightFormats | None = None) -> Decoder[Any]:
    """Returns the model with matrices in ``config.dtype`` instead of those that are quantised in groups, but for those
    that ``formats`` keep. A model without such matrices is returned unchanged."""
    dense = model.with_weights(dequantised_model(model.weights, formats))
    stored = quantised_bytes(model.weights) - quantised_bytes(dense.weights)
    if not stored:
        return model
    taken = dense.weights.embedding.dtype.itemsize * (
        quantised_numbers(model.weights) - quantised_numbers(dense.weights)
    )
    mib = 1024**2
    line = "%s: %.0f MiB of quantised weights are unpacked to %s, in which they take %.0f MiB"
    logger.info(line, config.model, stored / mib, config.dtype, taken / mib)
    return dense


def _on_triton(
    model: Decoder[Any], config: EngineConfig, shapes: Sequence[GroupShape], context_length: int
) -> StepRunner:
    """Returns a runner on the Triton kernels, with packed weights if ``config.weight_dtype`` asks for them. Matrices of
    a GGUF file stay as they are stored, unless it asks for fewer bits."""
    from engine.kernels.triton.runner import TritonRunner

    formats = weight_formats(config.weight_dtype)
    if formats is not None:
        model = _unpacked(model, config, formats)
    _say_regrouped(model, config)
    model = _in_groups(model, config)
    if formats is not None:
        model = model.with_weights(packed_model(model.weights, formats, release=True))
    return TritonRunner(model, config, shapes, context_length)


def _on_torch(model: Decoder[Any], config: EngineConfig, shapes: Sequence[GroupShape], context_length: int) -> Runner:
    """Returns a runner on torch, with rounded weights if ``config.weight_dtype`` asks for them."""
    rounded = weight_formats(config.weight_dtype)
    model = _unpacked(model, config, rounded)
    if rounded is not None:
        model = _unpacked(model.with_weights(rounded_model(model.weights, rounded)), config)
    return Runner(model, config, shapes, context_length)
