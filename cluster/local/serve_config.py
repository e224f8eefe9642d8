"""The Serve config file (deployments/*.yaml): read, checked and fitted to this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cluster.local.environment import LOOPBACK

DEFAULT_PORT = 8000

# Serve ignores keys that it does not know; a typo would go unnoticed until someone misses its effect.
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
    """The file is not a Serve config; the message says what is wrong with it."""


def load(path: Path, port: int | None) -> dict[str, Any]:
    """The config in ``path``, its HTTP port replaced by ``port`` if given."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigFileError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigFileError(f"{path} is not YAML: {error}") from error
    try:
        return resolve(config, port)
    except ConfigFileError as error:
        raise ConfigFileError(f"{path}: {error}") from error


def resolve(config: object, port: int | None) -> dict[str, Any]:
    """A complete config for a local service: on loopback unless the file says otherwise, one node."""
    if not isinstance(config, dict) or not config.get("applications"):
        raise ConfigFileError("a Serve config is a mapping with `applications`")
    if unknown := sorted(map(str, config.keys() - _KNOWN_KEYS)):
        raise ConfigFileError(f"unknown keys: {', '.join(unknown)}")
    http = {"host": LOOPBACK, "port": DEFAULT_PORT, **(config.get("http_options") or {})}
    if http.get("request_timeout_s") is not None:
        # Serve's own limit cuts a stream in silence; the router's says what happened.
        raise ConfigFileError(
            "http_options.request_timeout_s must stay unset: set the application's router.request_timeout_s"
        )
    if port is not None:
        http["port"] = port
    if not isinstance(http["port"], int) or not 1 <= http["port"] <= 65535:
        raise ConfigFileError(f"http_options.port: {http['port']!r} is not a port")
    return {"proxy_location": "HeadOnly", **config, "http_options": http}
