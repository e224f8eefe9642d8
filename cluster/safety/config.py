"""``SafetySettings``: the branch ``safety`` of the config tree. Unknown keys are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from cluster.model_service.config import ModelServiceConfig, Settings
from safety.policy import SafetyPolicies


class SecondOpinionConfig(Settings):
    """The decoder that gives a second opinion on what the classifier is in doubt of. What was trained of it, and when
    it is asked, is in the classifier's files; where these describe none, it is not loaded."""

    model: str = Field(min_length=1)
    """The GGUF file of the decoder, or ``package:DISTRIBUTION/FILE`` for one in an installed Python package, none of
    whose code is run. It must be on the nodes of the replicas, and where the application is built."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """What the SHA-256 of the file must be. None: it is not checked."""
    optional: bool = False
    """Whether the service starts without a second opinion where the file is missing."""


class ClassifierConfig(ModelServiceConfig):
    """The settings of the deployment ``SafetyClassifier``, and of the routers' calls to it."""

    model: Path
    """The directory with config.json, vocab.txt and model.safetensors. It must be on the nodes of the replicas, and
    where the application is built."""
    second_opinion: SecondOpinionConfig | None = None
    """A larger model that is asked about one of ten windows of everyday texts, and about most harmful ones. A window
    costs it five times as much as the classifier, on a thread of its own, and it takes 110 to 200 MB. None: the
    classifier judges alone, with scores of another version."""


class SafetySettings(Settings):
    """The settings of the classifier and of the safety policies."""

    classifier: ClassifierConfig | None = None
    """The classifier of harmful content and prompt injections. None: there is none."""
    policies: SafetyPolicies | None = None
    """What is checked, and what follows, by tenant. None: no request and no answer is inspected."""

    @model_validator(mode="after")
    def _check_classifier(self) -> Self:
        if self.classifier is None and self.policies is not None:
            for name, policy in self.policies.named():
                if policy.classifies:
                    raise ValueError(f"policies.{name}: it needs safety.classifier")
        return self
