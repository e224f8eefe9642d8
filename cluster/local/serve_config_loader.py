"""``load``: reads and checks a Serve config file (deployments/*.yaml), and adapts it to a local service."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.local.environment import LOOPBACK

DEFAULT_PORT = 8000
BUILDER = "cluster.app:build"  # the import path of Manta's application
AUTO = "auto"  # the model name for which the router chooses the tier

# Serve ignores unknown keys, so that a typo would have no effect and no error.
_KNOWN_KEYS = frozenset(
    {
        "proxy_location",
        "http_options",
        "grpc_options",
        "controller_options",
        "logging_config",
        "tracing_config",
        "applications",
        "target_capacity",
    }
)


class ConfigFileError(ValueError):
    """The file is not a valid Serve config; the message says why."""


def load(path: Path, port: int | None) -> dict[str, Any]:
    """Returns the Serve config in the file ``path``, completed by ``resolve``. Raises ConfigFileError, which names the
    file, if it is missing, no YAML or no valid config. ``port`` replaces the HTTP port in the file; None keeps it."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigFileError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigFileError(f"{path} is not YAML: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigFileError(f"{path} is no text in UTF-8") from error
    try:
        return resolve(config, port)
    except ConfigFileError as error:
        raise ConfigFileError(f"{path}: {error}") from error


def resolve(config: object, port: int | None) -> dict[str, Any]:
    """Returns ``config`` completed for a local service. It listens on 127.0.0.1 if the config names no host, and on
    DEFAULT_PORT if it names no port. Without a ``proxy_location``, the head node alone serves HTTP.

    ``port`` replaces the HTTP port of the config; None: it is not changed. Raises ConfigFileError if ``config`` is not
    valid.
    """
    if not isinstance(config, dict) or not config.get("applications"):
        raise ConfigFileError("a Serve config is a mapping with `applications`")
    applications = config["applications"]
    if not isinstance(applications, list) or not all(isinstance(each, Mapping) for each in applications):
        raise ConfigFileError("`applications` is a list of mappings")
    if unknown := sorted(map(str, config.keys() - _KNOWN_KEYS)):
        raise ConfigFileError(f"unknown keys: {', '.join(unknown)}")
    given = config.get("http_options") or {}
    if not isinstance(given, Mapping):
        raise ConfigFileError("`http_options` is a mapping")
    http = {"host": LOOPBACK, "port": DEFAULT_PORT, **given}
    if http.get("request_timeout_s") is not None:
        # Serve's own time-out breaks off a stream without an error. The router's sends one.
        raise ConfigFileError(
            "http_options.request_timeout_s must stay unset: set the application's router.request_timeout_s"
        )
    if port is not None:
        http["port"] = port
    if not isinstance(http["port"], int) or not 1 <= http["port"] <= 65535:
        raise ConfigFileError(f"http_options.port: {http['port']!r} is not a port")
    return {"proxy_location": "HeadOnly", **config, "http_options": http}


def needs_state(application: Mapping[str, Any]) -> bool:
    """Returns whether an application is Manta's and its config names no Redis."""
    state = (application.get("args") or {}).get("state") or {}
    return application.get("import_path") == BUILDER and not state.keys() & {"url", "url_file"}


def with_state(config: Mapping[str, Any], url_file: Path, journal: Path) -> dict[str, Any]:
    """Returns ``config`` with the Redis whose URL is in ``url_file`` set in each application that needs one.

    The application keeps ledger entries in the directory ``journal`` until they are in Redis, unless its config names
    another.
    """
    added = {"url_file": str(url_file), "journal": str(journal)}

    def completed(application: dict[str, Any]) -> dict[str, Any]:
        arguments = application.get("args") or {}
        state = {**added, **(arguments.get("state") or {})}
        return {**application, "args": {**arguments, "state": state}} if needs_state(application) else application

    return {**config, "applications": [completed(application) for application in config["applications"]]}


def example_model(config: Mapping[str, Any]) -> str:
    """Returns a model name that the service of ``config`` accepts: ``auto`` if it is served, else the first tier's."""
    for application in config["applications"]:
        arguments = application.get("args") or {}
        if tiers := arguments.get("tiers"):
            serves_auto = (arguments.get("router") or {}).get("auto", {}) is not None
            first = next(iter(tiers))
            return AUTO if serves_auto else str(first if isinstance(tiers, Mapping) else first["name"])
    return AUTO


def optional_models(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns a file of each optional model in ``config``, whether it is installed or not, by what the service lacks
    without it: the name of a tier, ``embeddings``, or ``the classifier's second opinion``."""
    found: dict[str, str] = {}
    for application in config["applications"]:
        arguments = application.get("args") or {}
        tiers = arguments.get("tiers") or ()
        rows = [{"name": name, **row} for name, row in tiers.items()] if isinstance(tiers, Mapping) else tiers
        found |= {row["name"]: row["engine"]["model"] for row in rows if row.get("optional")}
        embedder = arguments.get("embedder") or {}
        if embedder.get("optional"):
            found["embeddings"] = f"{embedder['model']}/modules.json"  # the model is a directory
        classifier = (arguments.get("safety") or {}).get("classifier") or {}
        second = classifier.get("second_opinion") or {}
        if second.get("optional"):
            found["the classifier's second opinion"] = second["model"]
    return found
