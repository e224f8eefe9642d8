"""``SafetySettings``: the branch ``safety`` of the config tree. Unknown keys are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator

from cluster.model_service.config import ModelServiceConfig, Settings
from safety.policy import SafetyPolicies


class ClassifierConfig(ModelServiceConfig):
    """The settings of the deployment ``SafetyClassifier``, and of the routers' calls to it."""

    model: Path
    """The directory with config.json, vocab.txt and model.safetensors. It must be on the nodes of the replicas, and
    where the application is built."""


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
