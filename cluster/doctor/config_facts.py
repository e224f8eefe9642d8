"""``config_facts``: reads a Serve config, and says what it needs. No value of the config is in what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import ValidationError

from cluster.config import MantaConfig, TierConfig
from cluster.doctor.facts import ConfigFacts
from cluster.local.serve_config_loader import BUILDER, ConfigFileError, load
from engine.model.location import PACKAGE_SCHEME

LOCAL = "local://"
"""The scheme of a working_dir that is on each node already."""


def read_config(path: Path) -> tuple[ConfigFacts, MantaConfig | None]:
    """Returns the facts about the Serve config in the file ``path``, and the settings of its first application of
    Manta; None: it has no such application, or a malformed one. The facts then have the faults."""
    try:
        config = load(path, None)
    except ConfigFileError as error:
        return ConfigFacts(str(path), faults=[_not_yaml(error.__cause__) or str(error)]), None
    applications = {
        str(each.get("name", "default")): each.get("args") or {}
        for each in config["applications"]
        if isinstance(each, Mapping) and each.get("import_path") == BUILDER
    }
    port = int(config["http_options"]["port"])
    if not applications:
        return ConfigFacts(str(path), faults=[f"no application has the import_path {BUILDER}"], port=port), None
    try:
        settings = MantaConfig.model_validate(next(iter(applications.values())))
    except ValidationError as error:
        return ConfigFacts(str(path), applications, _faults(error), port), None
    parallel = any(tier.engine.tensor_parallel > 1 for tier in settings.tiers)
    start = _working_dir(config["applications"], next(iter(applications)))
    models = {_from(start, model): optional for model, optional in models_of(settings).items()}
    longest = settings.router.request_timeout_s
    facts = ConfigFacts(str(path), applications, (), port, models, gpus_of(settings), parallel, longest)
    return facts, settings


def models_of(config: MantaConfig) -> dict[str, bool]:
    """Returns the paths of the models that replicas read. The value of each says whether the service starts without the
    model."""
    found = {tier.engine.model: tier.optional for tier in config.tiers}
    if config.safety.classifier is not None:
        found[str(config.safety.classifier.model)] = False
        if (second := config.safety.classifier.second_opinion) is not None:
            found[second.model] = second.optional and found.get(second.model, True)  # a tier may have it too
    if config.embedder is not None:
        found[f"{config.embedder.model}/modules.json"] = config.embedder.optional  # how the embedder finds it
    if config.cache is not None:
        found[str(config.cache.pair_model)] = config.cache.optional
    return found


def _working_dir(applications: Sequence[Any], name: str) -> str:
    """Returns the directory of each node in which Ray runs the replicas of the application ``name``; "": that in which
    it was started."""
    environments = [
        each.get("runtime_env") or {}
        for each in applications
        if isinstance(each, Mapping) and str(each.get("name", "default")) == name
    ]
    directory = str(environments[0].get("working_dir", ""))
    return directory.removeprefix(LOCAL) if directory.startswith(LOCAL) else ""


def _from(directory: str, model: str) -> str:
    """Returns where replicas that run in ``directory`` find a model."""
    relative = directory and not model.startswith(PACKAGE_SCHEME)
    return str(PurePosixPath(directory, model)) if relative else model


def gpus_of(config: MantaConfig) -> float:
    """Returns the number of GPUs that all replicas need. An autoscaled tier counts with its minimum of replicas."""
    return sum(_least(config, tier) * tier.num_gpus * tier.engine.tensor_parallel for tier in config.tiers)


def _least(config: MantaConfig, tier: TierConfig) -> int:
    scaled: Mapping[str, Any] = {} if config.autoscaling is None else config.autoscaling.tiers
    return scaled[tier.name].min if tier.name in scaled else tier.replicas


def _not_yaml(error: BaseException | None) -> str:
    """Returns where a file is no YAML, without the line, which YAML's own message quotes; "": that is not the fault."""
    if not isinstance(error, yaml.YAMLError):
        return ""
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    return "it is no YAML" if mark is None else f"it is no YAML at line {mark.line + 1}, column {mark.column + 1}"


def _faults(error: ValidationError) -> list[str]:
    """Returns what is wrong and where, without the values, which may be keys."""
    rows = error.errors(include_url=False, include_input=False, include_context=False)
    return [f"{'.'.join(map(str, row['loc']))}: {row['msg']}" for row in rows]
