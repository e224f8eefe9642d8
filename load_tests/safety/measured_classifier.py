"""The classifiers of the measurement of streams: a timed one, and the shipped model as a service runs it."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cluster.local.environment import local_environment, prepare_directory
from load_tests.safety.quantiles import quantiles
from safety.api import Scores, TextClassifier

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "deployments" / "models" / "safety"

Kind = Literal["timed", "in-process", "deployment"]
KINDS: Sequence[Kind] = ("timed", "in-process", "deployment")


class QuietClassifier:
    """Takes ``seconds`` for each call, however many there are at once, and finds nothing. Implements
    ``TextClassifier``."""

    version = "quiet-1"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Scores]:
        """Returns scores of 0."""
        await asyncio.sleep(self._seconds)
        return [Scores({"violence": 0.0}, 0.0, False) for _ in texts]


class MeasuredClassifier:
    """Classifies as ``inner`` does, and notes how long each call takes. Implements ``TextClassifier``."""

    def __init__(self, inner: TextClassifier) -> None:
        self._inner = inner
        self._ms: list[float] = []

    @property
    def version(self) -> str:
        """The version of the model."""
        return self._inner.version

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Scores]:
        """Returns the scores of ``inner``. A call that is cancelled is not counted."""
        started = time.perf_counter()
        scores = await self._inner.classify(texts, tenant, urgent=urgent)
        self._ms.append(1000 * (time.perf_counter() - started))
        return scores

    def ms(self) -> dict[str, float]:
        """Returns the median and the 99th percentile of the calls, in milliseconds."""
        return quantiles(self._ms)


class LateClassifier:
    """A classifier that ``make`` makes when it is first called: handles of deployments belong to the event loop that
    runs then. Implements ``TextClassifier``."""

    def __init__(self, make: Callable[[], TextClassifier], version: str) -> None:
        self._make = make
        self._made: TextClassifier | None = None
        self.version = version

    async def classify(self, texts: Sequence[str], tenant: str = "", *, urgent: bool = False) -> Sequence[Scores]:
        """Returns the scores of the classifier."""
        if self._made is None:
            self._made = self._make()
        return await self._made.classify(texts, tenant, urgent=urgent)


@contextmanager
def classifier_of(kind: Kind, seconds: float) -> Iterator[TextClassifier]:
    """The classifier: a timed one that takes ``seconds``, the shipped model on a thread of this process, or the
    deployment ``SafetyClassifier`` on a Ray cluster of its own, called as routers call it."""
    if kind == "timed":
        yield QuietClassifier(seconds)
    elif kind == "in-process":
        from safety.classifier.batching_classifier import BatchingClassifier  # the others need no ONNX Runtime
        from safety.classifier.window_classifier import WindowClassifier

        classifier = BatchingClassifier(WindowClassifier(MODEL))
        yield classifier
        classifier.close()
    else:
        with _deployment() as client:
            yield client


@contextmanager
def _deployment() -> Iterator[TextClassifier]:
    with tempfile.TemporaryDirectory(prefix="manta-", dir="/tmp") as name:  # short: Ray's sockets have long names
        prepare_directory(Path(name))
        os.environ.update(local_environment(Path(name)))
        os.environ["PYTHONPATH"] = str(ROOT)
        import ray  # it reads the environment at the import
        from ray import serve

        from cluster.safety.config import ClassifierConfig
        from cluster.safety.deployment import bind_classifier, classifier_client
        from load_tests.local_graph import start_ray

        start_ray()
        try:
            link = bind_classifier(ClassifierConfig(model=MODEL, num_cpus=0))
            handle = serve.run(link.handle, name="classifier", route_prefix=None)
            yield LateClassifier(lambda: classifier_client(link._replace(handle=handle)), link.version)
        finally:
            ray.shutdown()  # Serve ends with its cluster; its own end would need the event loop of the handle
