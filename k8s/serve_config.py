"""``python -m k8s.serve_config`` (``make k8s``): writes the Serve config of each overlay from deployments/*.yaml.

A RayService has its Serve config as a string, ``serveConfigV2``. Written by hand it would drift from the file that is
validated, tested and run elsewhere.
"""

from __future__ import annotations

import hashlib
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.config import MantaConfig
from cluster.local.serve_config_loader import BUILDER, ConfigFileError, load

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {"dev": "deployments/dev.yaml", "prod": "deployments/prod.yaml"}
"""The Serve config of each overlay, relative to the checkout."""

IMAGE_ROOT = "/opt/manta"
"""Where the image has the checkout (k8s/Dockerfile)."""
STATE = {"url_file": "/etc/manta/redis-url", "journal": "/var/lib/manta/journal"}
"""Where the pods have the URL of Redis, from a Secret, and room for the journal."""
MIN_CPUS = 0.1
"""Cores that a deployment reserves that reserves none. Ray places what needs nothing on the head, too, which offers 0
cores so that no replica runs there."""

_HEADER = """\
# Written by `make k8s` from {source}. Change that file, not this one.
apiVersion: ray.io/v1
kind: RayService
metadata:
  name: manta
spec:
  serveConfigV2: |
"""
_APPLICATION_KEYS = frozenset({"name", "route_prefix", "import_path", "args"})


def clustered(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a Serve config adapted to the pods of k8s/base. What a config for a cluster says already stays.

    HTTP listens on all interfaces of every node with a replica, API keys are replaced by their digests, relative paths
    become those of the image, and the state is in Redis. Raises ConfigFileError for an application that is not Manta's
    or has keys that Serve would ignore, and pydantic's ValidationError for wrong settings.
    """
    applications = [_application(application) for application in config["applications"]]
    http = {**config["http_options"], "host": "0.0.0.0"}
    return {**config, "proxy_location": "EveryNode", "http_options": http, "applications": applications}


def manifest(config: Mapping[str, Any], source: str) -> str:
    """Returns the patch of the RayService that has ``config`` as its Serve config, as YAML. ``source`` is the file that
    the first line names."""
    text = yaml.safe_dump(dict(config), sort_keys=False, width=1000, allow_unicode=True)
    return _HEADER.format(source=source) + textwrap.indent(text, "    ")


def manifests(root: Path = ROOT) -> dict[Path, str]:
    """Returns the patch of each overlay below ``root`` by its path. Raises as ``clustered`` and ``load`` do."""
    return {
        root / "k8s" / "overlays" / overlay / "serve-config.yaml": manifest(
            clustered(load(root / source, None)), source
        )
        for overlay, source in SOURCES.items()
    }


def digest(key: str) -> str:
    """Returns the digest by which a config names an API key; ``key`` itself if it is one."""
    return key if key.startswith("sha256:") else f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def _application(application: Mapping[str, Any]) -> dict[str, Any]:
    if application.get("import_path") != BUILDER:
        raise ConfigFileError(f"applications: {application.get('name')}: its import_path is not {BUILDER}")
    if unknown := sorted(map(str, application.keys() - _APPLICATION_KEYS)):
        raise ConfigFileError(f"applications: {application['name']}: unknown keys: {', '.join(unknown)}")
    arguments = {name: _placed(value) for name, value in application["args"].items()}
    router = arguments["router"]
    keys = [{**row, "key": digest(row["key"])} for row in router["keys"]]
    arguments |= {"router": {**router, "keys": keys}, "state": {**STATE, **arguments.get("state", {})}}
    MantaConfig.model_validate(arguments)
    return {**application, "args": arguments}


def _placed(value: Any, name: str = "") -> Any:
    """Returns a setting, and all below it, with the paths of the image and cores where it reserves none."""
    if isinstance(value, Mapping):
        return {key: _placed(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_placed(each, name) for each in value]
    if isinstance(value, str) and value.startswith("deployments/"):
        return f"{IMAGE_ROOT}/{value}"
    return MIN_CPUS if name == "num_cpus" and value == 0 else value


def main() -> int:
    """Writes the patches. Returns the exit code: 1 for a source that is wrong."""
    try:
        written = manifests()
    except ValueError as error:  # ConfigFileError and pydantic's ValidationError
        print(f"k8s: {error}", file=sys.stderr)
        return 1
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
