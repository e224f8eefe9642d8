"""``loaded_model``: what an engine needs of a model: weights, tokenizer, and the processes of the other ranks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.backend import load_model
from engine.config import EngineConfig
from engine.gguf.split_parts import split_parts
from engine.model.decoder import Decoder
from engine.model.location import check_digest, locate
from engine.model.source import ModelSource, open_model
from engine.parallel.crew import Crew
from engine.parallel.launch import Launcher
from engine.parallel.share import Share
from engine.token_id_tokenizer import TokenIds, load_tokenizer
from engine.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, or one shard of several if there is a ``crew``: the processes of the other ranks (tensor
    parallelism)."""

    decoder: Decoder[Any]
    tokenizer: Tokenizer | TokenIds
    crew: Crew | None = None


@contextmanager
def loaded_model(config: EngineConfig, launcher: Launcher) -> Iterator[LoadedModel]:
    """Loads the model that ``config`` names, and yields it to the body that makes its engine. Sets torch's number of
    threads, if ``config.threads`` says so. ``launcher`` starts the processes of the other ranks, which are ready
    afterwards; they end if the body raises. Raises as ``Engine.from_config`` does."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    source = _opened(config)
    tokenizer = _tokenizer(config, source)
    if config.tensor_parallel == 1:
        yield LoadedModel(load_model(config, source), tokenizer)
        return
    # A model that cannot be split raises before a process is started.
    Share(0, config.tensor_parallel).spec(source.spec)
    crew = Crew.start(config, launcher)
    with ExitStack() as on_failure:
        on_failure.callback(crew.close)
        yield LoadedModel(load_model(config, source, crew.exchange), tokenizer, crew)
        crew.await_ready()
        on_failure.pop_all()


def _opened(config: EngineConfig) -> ModelSource:
    """Returns the model's files, whose digest is as ``config`` says."""
    path = locate(config.model)
    if config.model_sha256 is not None:
        check_digest(split_parts(path), config.model_sha256)
    return open_model(path)


def _tokenizer(config: EngineConfig, source: ModelSource) -> Tokenizer | TokenIds:
    """Returns the model's tokenizer. Raises ValueError if the draft model has another one."""
    tokenizer = load_tokenizer(source, None if config.chat_template is None else Path(config.chat_template))
    if isinstance(tokenizer, Tokenizer) and not tokenizer.has_chat_template:
        logger.warning("%s has no chat template, so it refuses conversations; chat_template gives one", config.model)
    if config.draft_model is not None:
        draft_tokenizer = load_tokenizer(open_model(locate(config.draft_model)))
        if draft_tokenizer.vocabulary != tokenizer.vocabulary:
            raise ValueError("draft_model has other tokens than the model")
    return tokenizer
