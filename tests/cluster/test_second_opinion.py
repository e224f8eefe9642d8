"""The second opinion of a replica: where its base comes from, and what the service does without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.config import MantaConfig
from cluster.doctor.config_facts import models_of
from cluster.safety.classifier_replica import ClassifierReplica, load_classifier
from cluster.safety.config import ClassifierConfig
from cluster.safety.deployment import bind_classifier, described_classifier
from cluster.telemetry.config import TelemetryConfig
from engine.model.location import ModelDigestError
from router.ports.trace_names import Attribute
from tests.cluster.graph import dev_config
from tests.cluster.otlp_receiver import attributes, http_receiver
from tests.cluster.traced_actors import SAMPLED
from tests.safety.artefacts import write_classifier
from tests.safety.second_opinions import write_second_opinion


def config(directory: Path, **second_opinion: Any) -> ClassifierConfig:
    return ClassifierConfig.model_validate({"model": directory, "second_opinion": second_opinion or None})


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier whose files describe a second opinion, with its base."""
    return write_second_opinion(tmp_path_factory.mktemp("asked"), gate=0.0)


async def test_a_replica_asks_for_a_second_opinion_where_the_config_says_so(asked: Path) -> None:
    both = config(asked, model=str(asked / "base.gguf"))
    described = described_classifier(both)
    assert described == (both, "tiny-1")
    reply = await ClassifierReplica(described.config).classify(["the bomb"])
    alone = await ClassifierReplica(config(asked)).classify(["the bomb"])
    assert (reply.version, alone.version) == ("tiny-1", "tiny-1-alone")
    assert reply.scores != alone.scores
    assert described_classifier(config(asked)).version == "tiny-1-alone"


async def test_the_spans_of_a_call_are_those_of_both_models(asked: Path) -> None:
    settings = config(asked, model=str(asked / "base.gguf"))
    with http_receiver() as received:
        replica = ClassifierReplica(settings, telemetry=TelemetryConfig(endpoint=received.endpoint))
        await replica.classify(["the bomb"], trace=SAMPLED)
        replica.__del__()
    batches = [attributes(span.attributes) for span in received.spans if span.name == "batch"]
    assert [each[Attribute.BATCH_MODEL] for each in batches] == ["classifier", "second opinion"]


@pytest.mark.parametrize("model", ["package:no-such-package/model.gguf", "no/such/file.gguf"])
def test_a_missing_base_is_left_out_if_it_is_optional(
    asked: Path, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    second = {"model": model}
    with pytest.raises(ValueError, match=r"safety\.classifier\.second_opinion: .*no-?.such"):
        bind_classifier(config(asked, **second))
    link = bind_classifier(config(asked, **second, optional=True))
    assert (link.version, link.config.second_opinion) == ("tiny-1-alone", None)
    assert f"without a second opinion: {model}" in caplog.text


def test_files_without_a_second_opinion_judge_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    link = bind_classifier(config(write_classifier(tmp_path), model="no/such/file"))
    assert (link.version, link.config.second_opinion) == ("tiny-1", None)
    assert "without a second opinion: the files of the classifier tiny-1 describe none" in caplog.text


def test_a_base_with_another_digest_stops_the_replica(asked: Path) -> None:
    second = {"model": str(asked / "base.gguf"), "sha256": "0" * 64}
    with pytest.raises(ModelDigestError, match="not 0000"):
        load_classifier(config(asked, **second))


def test_a_replica_with_a_second_opinion_imports_no_torch(asked: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cluster.safety.classifier_replica import load_classifier; "
        "from cluster.safety.config import ClassifierConfig; "
        f"base = {{'model': {str(asked / 'base.gguf')!r}}}; "
        f"load_classifier(ClassifierConfig(model=Path({str(asked)!r}), second_opinion=base)); "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("tier", "second", "expected"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_the_doctor_looks_for_the_base_which_a_tier_may_have_too(tier: bool, second: bool, expected: bool) -> None:
    arguments = dev_config()
    packed = {"name": "packed", "optional": tier, "engine": {"model": "base.gguf"}}
    classifier = {"model": "models/safety", "second_opinion": {"model": "base.gguf", "optional": second}}
    arguments["router"]["prices"]["tiers"]["packed"] = {"input": 1, "output": 1}
    arguments |= {"tiers": [*arguments["tiers"], packed], "safety": {"classifier": classifier}}
    assert models_of(MantaConfig.model_validate(arguments))["base.gguf"] is expected
