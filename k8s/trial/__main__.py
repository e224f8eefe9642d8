"""``python -m k8s.trial``: see DESCRIPTION."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from k8s.secrets import first_secrets, redis_secrets
from k8s.trial.operator import HEAD, ray_command, ray_environment, wait_command, wait_template, with_operators_volumes
from k8s.trial.overlay import Overlay, OverlayError, build
from k8s.trial.pod import PROBES, Object, PodmanPod, UnknownFieldError
from k8s.trial.podman import Container, PodmanError, image_exists, podman, remove
from k8s.trial.questions import Dashboard, TrialError, chat, confinement, get, limits, ports, probe, until

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = """\
Runs the pods of k8s/overlays/dev with podman, without Kubernetes: Redis, the head and one worker of each group that
has replicas, from an image that k8s/Dockerfile made, with the users, rights, limits, volumes and environment that the
manifests give them and what KubeRay's operator adds. Then it deploys the Serve config, asks each probe, reads the
metrics, and has each tier answer one chat whole and one streamed. Each line tells what was asked and what was found;
the first fault ends the trial with status 1. Afterwards nothing is left.

The image is built without a daemon by

    buildah bud --format docker -f k8s/Dockerfile --ignorefile k8s/Dockerfile.dockerignore -t manta:trial \\
        --build-arg BASE_DIGEST=sha256:... .

It needs root, podman and kubectl, memory for the limits of the overlay's pods (9.5 GiB), and an image of Redis that
has cat. Where SELinux is enforced the volumes need labels, which it does not set.
Not tried: scheduling, network policies, services, the autoscaler, limits of disk, the pods' end, and all that watches
pods."""


class Images(NamedTuple):
    """The names of the images, as podman knows them."""

    manta: str
    redis: str


class Trial:
    """The pods of an overlay on this machine. ``images`` are those of the Ray pods and of Redis, ``network`` the name
    of the pods' network, which is part of each pod's name, and ``folder`` an empty folder. ``pods`` removes the pods at
    its end. The methods raise PodmanError, TrialError, OverlayError and UnknownFieldError."""

    def __init__(self, overlay: Overlay, images: Images, network: str, folder: Path, pods: ExitStack) -> None:
        self._overlay = overlay
        self._images = images
        self._network = network
        self._folder = folder
        self._pods = pods
        self._containers: dict[str, Container] = {}

    def start(self) -> None:
        """Starts Redis, the head and the workers, each when the one before it is ready."""
        overlay = self._overlay
        redis = self._pod("redis", overlay.redis, self._images.redis)
        hosts = {"redis": self._start("redis", replace(redis, claims=overlay.redis_claims)).address}
        head = self._ray("head", overlay.cluster["headGroupSpec"], hosts)
        hosts = {**hosts, HEAD: self._start("head", head).address}
        for group in overlay.cluster["workerGroupSpecs"]:
            if group["replicas"]:
                name = f"worker-{group['groupName']}"
                worker = self._ray(name, group, hosts)
                self._wait_for_gcs(name, worker)
                self._start(name, worker)

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
        """Asks the probes, the metrics and the tiers, and looks at the rights and the limits of each pod."""
        for name, container in self._containers.items():
            for kind in sorted(PROBES & container.pod.container.keys()):
                took_s = until(partial(probe, container, kind), f"{name}: {kind}", 60.0)
                _tell(f"{name}: {kind}", f"succeeds ({took_s:.0f} s)")
            for port, number in self._scraped(container).items():
                url = f"http://{container.address}:{number}/metrics"
                until(partial(get, url, 10.0, "# TYPE"), f"{name}: {port}", 60.0)
                _tell(f"{name}: /metrics on {port}", "has metrics")
            _tell(f"{name}: rights", confinement(container))
        workers = [container for name, container in self._containers.items() if name.startswith("worker-")]
        if not workers:
            raise TrialError("no group of workers has replicas")
        (application,) = self._overlay.serve_config["applications"]
        for tier in application["args"]["tiers"]:
            tokens = chat(workers[0].address, key, tier["name"])
            _tell(f"chat with {tier['name']}, whole and streamed", f"{tokens} tokens")
        for name, container in self._containers.items():
            _tell(f"{name}: limits", limits(container))

    def _scraped(self, container: Container) -> dict[str, int]:
        """Returns the ports of a container from which Prometheus reads, without that of the autoscaler, which does not
        run."""
        scraped = self._overlay.scraped - {"as-metrics"}
        return {name: number for name, number in ports(container.pod.container).items() if name in scraped}

    def _ray(self, name: str, group: Object, hosts: Mapping[str, str]) -> PodmanPod:
        overlay = self._overlay
        return replace(
            self._pod(name, with_operators_volumes(group), self._images.manta),
            hosts=hosts,
            command=ray_command(group, overlay.cluster),
            environment=ray_environment(group, overlay.cluster, overlay.files.secrets, name),
        )

    def _pod(self, name: str, template: Object, image: str) -> PodmanPod:
        return PodmanPod(f"{self._network}-{name}", template, image, self._overlay.files, self._network)

    def _wait_for_gcs(self, name: str, worker: PodmanPod) -> None:
        """Runs the container that the operator puts before Ray's, until it has ended."""
        template = wait_template(worker.template)
        pod = replace(worker, name=f"{worker.name}-wait", template=template, command=wait_command())
        self._pods.callback(remove, pod.name)
        began = time.monotonic()
        Container(pod, self._folder / f"{name}-wait").run_to_end(120.0)
        _tell(f"{name}: wait-gcs-ready", f"ends after {time.monotonic() - began:.0f} s, within {pod.memory >> 20} MiB")

    def _start(self, name: str, pod: PodmanPod) -> Container:
        container = self._containers[name] = Container(pod, self._folder / name)
        self._pods.callback(remove, pod.name)  # before it is started: podman may fail after it has made it
        container.start()
        took_s = until(partial(probe, container, "startupProbe"), f"{name} starts", 300.0, container)
        _tell(f"{name}: started", f"after {took_s:.0f} s")
        return container


@contextmanager
def network() -> Iterator[str]:
    """The network of the pods; its name is new."""
    name = f"manta-trial-{secrets.token_hex(4)}"
    try:
        podman("network", "create", name)
        yield name
    finally:
        podman("network", "rm", "--force", name)


def main() -> int:
    """Returns the exit status."""
    options = _options()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))  # so that the pods are removed
    began = time.monotonic()
    try:
        images = Images(options.image, options.redis_image)
        if missing := [image for image in images if not image_exists(image)]:
            raise TrialError(f"podman has no image {', '.join(missing)}")
        overlay = build(ROOT / "k8s" / "overlays" / "dev", [*redis_secrets(tls=False), *first_secrets()])
        with tempfile.TemporaryDirectory() as folder, network() as name, ExitStack() as pods:
            trial = Trial(overlay, images, name, Path(folder), pods)
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
