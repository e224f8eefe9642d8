"""``EmbedderReplica``: a replica of the deployment ``Embedder``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cluster.autoscaling.busy_counter import BusyCounter
from cluster.embedder.config import EmbedderConfig
from cluster.embedder.embedder_reply import EmbedderReply
from cluster.model_service.model_health import check_not_stuck
from cluster.process_memory import return_free_memory
from cluster.telemetry.application_name import application_name
from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.logs import replica_logs
from cluster.telemetry.noted_batches import note_batches
from cluster.telemetry.tracing import call_tracer
from router.ports.embedder import Embedder, EmbedderUnavailableError, Embeddings, TextTooLongError
from router.ports.trace_names import SpanName


class LocalEmbedder(Embedder, Protocol):
    """The embedder in a replica. ``BatchingEmbedder`` implements it; its docstrings apply here too."""

    def busy_s(self) -> float: ...


MakeEmbedder = Callable[[EmbedderConfig], LocalEmbedder]
"""Makes the embedder of a replica, in its process."""


class EmbedderReplica:
    """The actor of one replica. It batches the texts of all routers. The constructor loads the model.

    ``make_embedder`` is called in the replica's process, since routers and the application builder do not import ONNX
    Runtime; None: ``load_embedder``. ``telemetry`` None: the defaults.
    """

    def __init__(
        self,
        config: EmbedderConfig,
        make_embedder: MakeEmbedder | None = None,
        telemetry: TelemetryConfig | None = None,
    ) -> None:
        telemetry = telemetry or TelemetryConfig()
        replica_logs(telemetry.logs)
        refusals = (TextTooLongError,)
        self._traces = call_tracer(telemetry, "embedder", SpanName.EMBED, refusals, application_name())
        self._embedder = (make_embedder or load_embedder)(config)
        return_free_memory()
        self._busy = BusyCounter()

    async def embed(
        self, texts: Sequence[str], tenant: str = "", trace: Mapping[str, str] | None = None
    ) -> EmbedderReply:
        """Returns the embeddings of ``texts`` of a tenant. If the call is cancelled, its texts that wait are dropped.
        ``trace`` is the caller's ``trace_headers``; None: it does not trace the request."""
        self._busy.count()
        model = self._embedder.model
        try:
            with self._traces.call(trace):
                found = await self._embedder.embed(texts, tenant)
            return EmbedderReply(found.model, Embeddings(found.vectors, found.tokens))
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

    def __del__(self) -> None:
        # Serve calls it when a replica ends.
        if traces := getattr(self, "_traces", None):  # absent if the constructor failed
            traces.close()


def load_embedder(config: EmbedderConfig) -> LocalEmbedder:
    """Loads the model of ``config`` and returns the embedder.

    Raises ModelNotFoundError, OSError, ModelDigestError and UnsupportedSentenceModelError as ``read_artefact`` does,
    and UnsupportedEncoderError for files that do not fit.
    """
    from cluster.embedder.batching_embedder import BatchingEmbedder
    from cluster.embedder.sentence_encoder import SentenceEncoder
    from cluster.embedder.sentence_model_files import read_artefact

    encoder = SentenceEncoder(read_artefact(config), config.precision)
    return BatchingEmbedder(encoder, config.max_batch_tokens, note_batches)
