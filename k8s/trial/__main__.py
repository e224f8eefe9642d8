"""``python -m k8s.trial``: see DESCRIPTION."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from k8s.secrets import first_secrets, redis_secrets
from k8s.trial.operator import GCS_PORT, HEAD, ray_command, ray_environment
from k8s.trial.overlay import Overlay, OverlayError, build
from k8s.trial.pod import PodmanPod, UnknownFieldError
from k8s.trial.podman import Container, PodmanError, image_exists, podman
from k8s.trial.questions import Dashboard, TrialError, chat, confinement, get, ports, probe, until

ROOT = Path(__file__).resolve().parents[2]
NETWORK = "manta-trial"
DESCRIPTION = """\
Runs the pods of k8s/overlays/dev with podman, without Kubernetes: Redis, the head and one worker of each group that
has replicas, from an image that k8s/Dockerfile made, with the users, rights, limits, volumes and environment that the
manifests give them and what KubeRay's operator adds. Then it deploys the Serve config, asks each probe, reads the
metrics, and has each tier answer one chat whole and one streamed. Each line tells what was asked and what was found;
the first fault ends the trial with status 1. Afterwards nothing is left.

The image is built without a daemon by

    buildah bud --format docker -f k8s/Dockerfile --ignorefile k8s/Dockerfile.dockerignore -t manta:trial \\
        --build-arg BASE_DIGEST=sha256:... .

It needs root, podman and kubectl, and memory for the limits of the overlay's pods (9.5 GiB).
Not tried: scheduling, network policies, services, the autoscaler, and all that watches pods."""


class Trial:
    """The pods of an overlay on this machine. ``folder`` is empty."""

    def __init__(self, overlay: Overlay, image: str, redis_image: str, folder: Path, pods: ExitStack) -> None:
        self._overlay = overlay
        self._image = image
        self._redis_image = redis_image
        self._folder = folder
        self._pods = pods
        self._containers: dict[str, Container] = {}

    def start(self) -> None:
        """Starts Redis, the head and the workers, each when the one before it is ready."""
        cluster, files = self._overlay.cluster, self._overlay.files
        redis = self._run("redis", self._overlay.redis, self._redis_image)
        hosts = {"redis": redis.address}
        head = cluster["headGroupSpec"]
        environment = ray_environment(cluster, files.secrets)
        hosts[HEAD] = self._run("head", head["template"], self._image, hosts, ray_command(head), environment).address
        for group in cluster["workerGroupSpecs"]:
            if not group["replicas"]:
                continue
            gcs = f"{HEAD}:{GCS_PORT}"
            command, environment = ray_command(group, gcs), ray_environment(cluster, files.secrets, gcs)
            self._run(f"worker-{group['groupName']}", group["template"], self._image, hosts, command, environment)

    def deploy(self) -> None:
        """Deploys the Serve config, and waits until all of it is healthy."""
        overlay = self._overlay
        token = overlay.files.secrets[overlay.cluster["authOptions"]["secretName"]]["auth_token"]
        dashboard = Dashboard(self._containers["head"].address, token)
        until(dashboard.ready, "the dashboard answers", 60.0, *self._containers.values())
        dashboard.deploy(overlay.serve_config)
        took_s = until(dashboard.unfinished, "the application is healthy", 900.0, *self._containers.values())
        _tell("Serve config deployed through the dashboard, all deployments healthy", f"after {took_s:.0f} s")

    def ask(self, key: str) -> None:
        """Asks the probes, the metrics and the tiers, and looks at the rights and the memory of each pod."""
        for name, container in self._containers.items():
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                took_s = until(partial(probe, container, kind), f"{name}: {kind}", 60.0)
                _tell(f"{name}: {kind}", f"succeeds ({took_s:.0f} s)")
            for port, number in self._scraped(container).items():
                until(partial(get, f"http://{container.address}:{number}/metrics", 10.0), f"{name}: {port}", 60.0)
                _tell(f"{name}: /metrics on {port}", "answers")
            _tell(f"{name}: rights", confinement(container))
        worker = next(each for name, each in self._containers.items() if name.startswith("worker-"))
        (application,) = self._overlay.serve_config["applications"]
        for tier in application["args"]["tiers"]:
            tokens = chat(worker.address, key, tier["name"])
            _tell(f"chat with {tier['name']}, whole and streamed", f"{tokens} tokens")
        for name, container in self._containers.items():
            _tell(f"{name}: memory", f"{container.memory() / 2**30:.2f} of {container.pod.memory / 2**30:.2f} GiB")

    def _scraped(self, container: Container) -> dict[str, int]:
        """Returns the ports of a container from which Prometheus reads, without that of the autoscaler, which does not
        run."""
        scraped = self._overlay.scraped - {"as-metrics"}
        return {name: number for name, number in ports(container.pod.container).items() if name in scraped}

    def _run(self, name: str, template: object, image: str, *added: object) -> Container:
        pod = PodmanPod(name, template, image, self._overlay.files, NETWORK, *added)  # type: ignore[arg-type]
        container = Container(pod, self._folder / name)
        self._pods.callback(container.remove)
        self._containers[name] = container
        took_s = until(partial(probe, container, "startupProbe"), f"{name} starts", 300.0, container)
        _tell(f"{name}: started", f"after {took_s:.0f} s")
        return container


@contextmanager
def network() -> Iterator[None]:
    """The network of the pods."""
    podman("network", "create", NETWORK)
    try:
        yield
    finally:
        podman("network", "rm", "--force", NETWORK)


def main() -> int:
    """Returns the exit status."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the pods are removed
    began = time.monotonic()
    try:
        missing = [each for each in (options.image, options.redis_image) if not image_exists(each)]
        if missing:
            raise TrialError(f"podman has no image {', '.join(missing)}")
        overlay = build(ROOT / "k8s" / "overlays" / "dev", [*redis_secrets(tls=False), *first_secrets()])
        with tempfile.TemporaryDirectory() as folder, network(), ExitStack() as pods:
            trial = Trial(overlay, options.image, options.redis_image, Path(folder), pods)
            trial.start()
            trial.deploy()
            trial.ask(options.key)
    except (OverlayError, PodmanError, TrialError, UnknownFieldError) as error:
        print(f"FAULT: {error}", file=sys.stderr)
        return 1
    print(f"All of it in {time.monotonic() - began:.0f} s.")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m k8s.trial", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", default="manta:trial", help="of the Ray pods (default: %(default)s)")
    parser.add_argument(
        "--redis-image",
        default="redis:7.4",
        help="of Redis; any with redis-server 7 and redis-cli (default: %(default)s)",
    )
    parser.add_argument("--key", default="sk-manta-dev", help="an API key of the overlay (default: %(default)s)")
    options = parser.parse_args()
    if not shutil.which("podman"):
        parser.error("podman is not installed")
    if os.geteuid():
        parser.error("it needs root, to give volumes to the pods' user")
    return options


def _tell(asked: str, found: str) -> None:
    print(f"{asked:<80} {found}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
