"""``EmbedderReplica``: a replica of the deployment ``Embedder``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

from cluster.autoscaling.busy_counter import BusyCounter
from cluster.embedder.config import EmbedderConfig
from cluster.embedder.embedder_reply import EmbedderReply
from cluster.model_service.model_health import check_not_stuck
from cluster.process_memory import return_free_memory
from cluster.telemetry.config import LogsConfig
from cluster.telemetry.logs import replica_logs
from router.ports.embedder import Embedder, EmbedderUnavailableError, TextTooLongError


class LocalEmbedder(Embedder, Protocol):
    """The embedder in a replica. ``BatchingEmbedder`` implements it; its docstrings apply here too."""

    def busy_s(self) -> float: ...


MakeEmbedder = Callable[[EmbedderConfig], LocalEmbedder]
"""Makes the embedder of a replica, in its process."""


class EmbedderReplica:
    """The actor of one replica. It batches the texts of all routers. The constructor loads the model.

    ``make_embedder`` is called in the replica's process, since routers and the application builder do not import ONNX
    Runtime; None: ``load_embedder``. ``logs`` None: the defaults.
    """

    def __init__(
        self, config: EmbedderConfig, make_embedder: MakeEmbedder | None = None, logs: LogsConfig | None = None
    ) -> None:
        replica_logs(logs or LogsConfig())
        self._embedder = (make_embedder or load_embedder)(config)
        return_free_memory()
        self._busy = BusyCounter()

    async def embed(self, texts: Sequence[str]) -> EmbedderReply:
        """Returns the embeddings of ``texts``. If the call is cancelled, its texts that still wait are dropped."""
        self._busy.count()
        model = self._embedder.model
        try:
            return EmbedderReply(model, await self._embedder.embed(texts))
        except TextTooLongError as error:
            return EmbedderReply(model, too_long=(error.index, error.tokens, error.max_tokens))
        except EmbedderUnavailableError as error:
            return EmbedderReply(model, failure=str(error))

    async def pid(self) -> int:
        """Returns the process id, for operators and tests."""
        return os.getpid()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Returns the numbers by which the deployment is scaled, if it is (``busy_report``)."""
        return self._busy.numbers()

    def check_health(self) -> None:
        """Raises ModelStuckError if the present batch takes too long. Serve calls it every
        ``health_check_period_s``."""
        check_not_stuck(self._embedder.busy_s())


def load_embedder(config: EmbedderConfig) -> LocalEmbedder:
    """Loads the model of ``config`` and returns the embedder.

    Raises ModelNotFoundError, OSError, ModelDigestError and UnsupportedSentenceModelError as ``read_artefact`` does,
    and UnsupportedEncoderError for files that do not fit.
    """
    from cluster.embedder.batching_embedder import BatchingEmbedder
    from cluster.embedder.sentence_encoder import SentenceEncoder
    from cluster.embedder.sentence_model_files import read_artefact

    return BatchingEmbedder(SentenceEncoder(read_artefact(config), config.precision), config.max_batch_tokens)
