"""What the kubelet, Prometheus and a client ask the pods; each question returns what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
from openai import DefaultHttpxClient, OpenAI, OpenAIError

from k8s.trial.confinement import faults, parsed
from k8s.trial.pod import Object
from k8s.trial.podman import Container, PodmanError

POLL_S = 1.0
PERIOD_US = 100_000
"""The period of a limit of cores, the kernel's default."""


class TrialError(RuntimeError):
    """A pod does not do what the manifests and docs promise."""


def until(found: Callable[[], str], what: str, limit_s: float, *containers: Container) -> float:
    """Returns how many seconds it takes until ``found`` returns "", which else returns what is missing. Raises
    TrialError after ``limit_s`` seconds, or if one of ``containers`` ends."""
    began = time.monotonic()
    while missing := found():
        for container in containers:
            if ended := container.ended:
                raise TrialError(f"{container.pod.name} has ended: {ended}")
        if time.monotonic() - began > limit_s:
            raise TrialError(f"{what}: not within {limit_s:g} s: {missing}")
        time.sleep(POLL_S)
    return time.monotonic() - began


def probe(container: Container, kind: str) -> str:
    """Returns what is wrong with a probe, as the kubelet asks it; "" if it succeeds. Raises TrialError if the pod has
    no such probe."""
    settings = container.pod.container.get(kind)
    if settings is None:
        raise TrialError(f"{container.pod.name} has no {kind}")
    timeout_s = settings.get("timeoutSeconds", 1)
    if "exec" in settings:
        try:
            container.execute(*settings["exec"]["command"], timeout_s=timeout_s)
        except PodmanError as error:
            return str(error)
        return ""
    port = settings["httpGet"]["port"]
    number = port if isinstance(port, int) else ports(container.pod.container)[port]
    return get(f"http://{container.address}:{number}{settings['httpGet']['path']}", timeout_s)


def get(url: str, timeout_s: float, line: str = "") -> str:
    """Returns what is wrong with the answer to a GET; "" if its status is below 400 and it has ``line`` in it."""
    try:
        answer = httpx.get(url, timeout=timeout_s, trust_env=False)
    except httpx.HTTPError as error:
        return f"{url}: {type(error).__name__} {error}"
    if answer.is_error:
        return f"{url}: status {answer.status_code}"
    return "" if line in answer.text else f"{url}: no {line!r}"


def ports(container: Object) -> dict[str, int]:
    """Returns the ports of a container by name."""
    return {each["name"]: each["containerPort"] for each in container.get("ports", ())}


def confinement(container: Container) -> str:
    """Returns the confinement of the container's first process in words. Raises TrialError if the kernel grants it more
    than its manifest."""
    status = parsed(container.execute("cat", "/proc/1/status"))
    if wrong := faults(container.pod, status, container.execute("cat", "/proc/1/mountinfo").splitlines()):
        raise TrialError(f"{container.pod.name}: {', '.join(wrong)}")
    return f"user {status['Uid'].split()[0]}, no capability, seccomp, no new privileges, only volumes can be written"


def limits(container: Container) -> str:
    """Returns the limits of memory and cores, and the memory that is used, in words. Raises TrialError if the limits
    are not those of the manifest."""
    pod = container.pod
    memory = container.limit("memory.max", "memory", "memory.limit_in_bytes")
    share = container.limit("cpu.max", "cpu", "cpu.cfs_quota_us") / PERIOD_US
    if memory != pod.memory or share != pod.cores:
        raise TrialError(f"{pod.name} has {memory} bytes and {share:g} cores, not {pod.memory} and {pod.cores:g}")
    used = container.limit("memory.current", "memory", "memory.usage_in_bytes")
    return f"{used / 2**30:.2f} of {memory / 2**30:.2f} GiB used, {share:g} cores"


class Dashboard:
    """Serve's REST API on the head, as the operator uses it."""

    def __init__(self, address: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._client = httpx.Client(base_url=f"http://{address}:8265", headers=headers, timeout=30.0, trust_env=False)

    def ready(self) -> str:
        """Returns why the API does not answer; "" if it does."""
        try:
            self._client.get("/api/serve/applications/").raise_for_status()
        except httpx.HTTPError as error:
            return f"{type(error).__name__} {error}"
        return ""

    def deploy(self, config: Mapping[str, Any]) -> None:
        """Deploys a Serve config. Raises TrialError if it is refused."""
        try:
            answer = self._client.put("/api/serve/applications/", json=config)
        except httpx.HTTPError as error:
            raise TrialError(f"the dashboard does not take the Serve config: {type(error).__name__} {error}") from error
        if answer.is_error:
            raise TrialError(f"the Serve config is refused: {answer.status_code} {answer.text[:500]}")

    def unfinished(self) -> str:
        """Returns which deployments are not healthy yet; "" if all applications run. Raises TrialError if a deployment
        has failed."""
        try:
            applications = self._client.get("/api/serve/applications/").raise_for_status().json()["applications"]
        except httpx.HTTPError as error:
            return f"{type(error).__name__} {error}"
        for name, each in applications.items():
            if each["status"] in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise TrialError(f"{name} is {each['status']}: {each['message']}")
        waiting = [
            f"{name} {state['status']}"
            for each in applications.values()
            for name, state in each["deployments"].items()
            if each["status"] != "RUNNING" and state["status"] != "HEALTHY"
        ]
        if applications and all(each["status"] == "RUNNING" for each in applications.values()):
            return ""
        return ", ".join(waiting) or "no deployment yet"


def chat(address: str, key: str, model: str) -> int:
    """Returns the completion tokens of a whole and of a streamed answer together. Raises TrialError if it is refused,
    or one has no text or no regular end."""
    http = DefaultHttpxClient(timeout=120.0, trust_env=False)
    client = OpenAI(base_url=f"http://{address}:8000/v1", api_key=key, max_retries=0, http_client=http)
    asked: Any = {"model": model, "messages": [{"role": "user", "content": "Name a sea."}], "max_tokens": 16}
    asked["extra_body"] = {"min_tokens": 8}  # small models may end at once
    try:
        whole = client.chat.completions.create(**asked)
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    except OpenAIError as error:
        raise TrialError(f"{model}: {error}") from error
    choices = [each.choices[0] for each in chunks if each.choices]
    text = "".join(each.delta.content or "" for each in choices)
    ends = [each.finish_reason for each in choices if each.finish_reason]
    usage = chunks[-1].usage if chunks else None
    regular = len(ends) == 1 and {whole.choices[0].finish_reason, *ends} <= {"stop", "length"}
    if not (regular and whole.choices[0].message.content and text and whole.usage and usage):
        raise TrialError(f"{model}: {whole}; streamed {text!r}, ends {ends}, usage {usage}")
    return int(whole.usage.completion_tokens + usage.completion_tokens)
