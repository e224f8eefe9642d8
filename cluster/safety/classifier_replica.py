"""``ClassifierReplica``: a replica of the deployment ``SafetyClassifier``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cluster.autoscaling.busy_counter import BusyCounter
from cluster.model_service.model_health import check_not_stuck
from cluster.process_memory import return_free_memory
from cluster.safety.classifier_reply import ClassifierReply
from cluster.safety.config import ClassifierConfig
from cluster.telemetry.application_name import application_name
from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.logs import replica_logs
from cluster.telemetry.noted_batches import note_batches
from cluster.telemetry.tracing import call_tracer
from router.ports.trace_names import SpanName
from safety.api import ClassifierBusyError, ClassifierUnavailableError, Scores


class LocalClassifier(Protocol):
    """The classifier in a replica. ``BatchingClassifier`` implements it; its docstrings apply here too."""

    @property
    def version(self) -> str: ...
    def busy_s(self) -> float: ...
    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Scores]: ...


MakeClassifier = Callable[[ClassifierConfig], LocalClassifier]
"""Makes the classifier of a replica, in its process."""


class ClassifierReplica:
    """The actor of one replica. It batches the texts of all routers. The constructor loads the model.

    ``make_classifier`` is called in the replica's process, since routers and the application builder do not import ONNX
    Runtime; None: ``load_classifier``. ``telemetry`` None: the defaults.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        make_classifier: MakeClassifier | None = None,
        telemetry: TelemetryConfig | None = None,
    ) -> None:
        telemetry = telemetry or TelemetryConfig()
        replica_logs(telemetry.logs)
        refusals = (ClassifierBusyError,)
        self._traces = call_tracer(telemetry, "classifier", SpanName.CLASSIFY, refusals, application_name())
        self._classifier = (make_classifier or load_classifier)(config)
        return_free_memory()
        self._busy = BusyCounter()

    async def classify(
        self, texts: Sequence[str], tenant: str = "", trace: Mapping[str, str] | None = None, *, urgent: bool = False
    ) -> ClassifierReply:
        """Returns the scores of each text of a tenant. If the call is cancelled, its texts that still wait are
        dropped. ``trace`` is the caller's ``trace_headers``; None: it does not trace the request. ``urgent`` is as in
        ``TextClassifier``."""
        self._busy.count()
        version = self._classifier.version
        try:
            with self._traces.call(trace):
                return ClassifierReply(version, tuple(await self._classifier.classify(texts, tenant, urgent=urgent)))
        except ClassifierUnavailableError as error:
            return ClassifierReply(version, failure=str(error), busy=isinstance(error, ClassifierBusyError))

    async def pid(self) -> int:
        """Returns the process id, for operators and tests."""
        return os.getpid()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Returns the numbers by which the deployment is scaled, if it is (``busy_report``)."""
        return self._busy.numbers()

    def check_health(self) -> None:
        """Raises ModelStuckError if the present batch takes too long. Serve calls it every
        ``health_check_period_s``."""
        check_not_stuck(self._classifier.busy_s())

    def __del__(self) -> None:
        # Serve calls it when a replica ends.
        if traces := getattr(self, "_traces", None):  # absent if the constructor failed
            traces.close()


def load_classifier(config: ClassifierConfig) -> LocalClassifier:
    """Loads the model of ``config`` and returns the classifier. Raises OSError for a missing file, and ArtefactError or
    UnsupportedEncoderError for files that do not fit."""
    from safety.classifier.batching_classifier import BatchingClassifier
    from safety.classifier.window_classifier import WindowClassifier

    model = WindowClassifier(config.model, config.precision)
    return BatchingClassifier(model, config.max_batch_tokens, on_batches=note_batches)
