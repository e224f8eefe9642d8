"""``TelemetryConfig``: the branch ``telemetry`` of the settings: where traces and metrics go, and what
logs look like.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from cluster.telemetry.tenant_labels import MAX_TENANTS


class LogsConfig(BaseModel):
    """The logs of routers, replicas and the other actors, in the files that Serve gives them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["json", "text"] = "text"
    """``json``: each line is an object with time, level, logger, message, deployment and replica, and the ids of the
    request and its trace where there is one. ``text``: as Serve writes lines, for people."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is logged. Libraries log from ``warning`` on, whatever it says."""


class MetricsConfig(BaseModel):
    """What metrics name, and where they are sent by OTLP, beside Prometheus, which reads them from Ray. Protocol,
    headers and time limit are those of ``telemetry``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str | None = None
    """As ``telemetry.endpoint``, but for ``http`` such as http://collector:4318/v1/metrics. None: none are sent."""
    interval_s: float = Field(15.0, ge=1, allow_inf_nan=False)
    """Seconds between two exports, which have all series of a process: about 250 of a replica."""
    max_tenants: int = Field(MAX_TENANTS, ge=0)
    """The tenants that a router counts by name, in the order in which they come; further ones are counted as
    ``(others)``. Also for Prometheus, which gets some 40 series for each where there are four tiers, and cannot
    have more than 2,000 of a metric from one process: 56 tenants. ``/v1/usage`` has the usage of all tenants."""


class TextsConfig(BaseModel):
    """The log of prompts and answers, redacted, of the tenants with ``router.tenants.*.log_texts``. It has files of its
    own on each router's node; nothing else has texts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: Path | None = None
    """Where the files are, which only the router's user can read. None: no texts are logged, and no tenant can ask for
    it."""
    max_characters: int = Field(16_384, ge=256)
    """The characters of a prompt that are logged at most, and of all answers to it: the longest texts are cut. Each
    16,384 take about 50 ms of a processor to redact."""
    max_pending_characters: int = Field(4 * 1024 * 1024, ge=65_536)
    """The characters that may wait to be redacted in a router's memory. What comes beyond is lost and counted."""
    keep_days: float = Field(7.0, gt=0, allow_inf_nan=False)
    """Days after its last line until a file is deleted. A file is written for a day at most."""
    max_bytes: int = Field(1024**3, ge=1024**2)
    """Bytes of all files of the directory, beyond which the oldest are deleted."""


class TelemetryConfig(BaseModel):
    """Where the traces of requests are sent, and which; without ``endpoint`` there are none. And the logs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str | None = None
    """The receiver of OTLP: the whole URL for ``http``, such as http://collector:4318/v1/traces; for ``grpc``
    collector:4317, with TLS unless it begins with http://. None: nothing is traced, and no tracing code is loaded."""
    protocol: Literal["http", "grpc"] = "http"
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """HTTP headers of each export, for receivers that want credentials. With http:// to another machine they are
    refused, since anyone on the way could read them."""
    service_name: str = "manta"
    """The resource attribute service.name."""
    sample_ratio: float = Field(0.05, ge=0, le=1)
    """The share of requests whose traces are kept in any case. The router draws them, and the other actors follow."""
    tenant_sample_ratios: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """The same share for single tenants, by name: 1 for one whose requests are looked into, 0 for one that sends much
    and says little. Faults and slow requests are kept also with 0. ``sample_ratio`` is that of all other tenants, and
    of requests that are refused before their tenant is known."""
    slow_s: float = Field(10.0, gt=0, allow_inf_nan=False)
    """Seconds from which a trace is kept whatever ``sample_ratio`` says. Traces with faults of the service are kept
    too. Each actor decides on its own spans, by its own time."""
    follow_caller: bool = False
    """Whether a caller's own decision that a trace is sampled is followed. False: any client could have all traced."""
    max_pending: int = Field(10_000, ge=1)
    """Requests of a process whose spans wait for their end; further ones are not traced."""
    timeout_s: float = Field(10.0, gt=0, allow_inf_nan=False)
    """Seconds that the receiver may take for an export. What it does not take is lost."""

    logs: LogsConfig = LogsConfig()
    texts: TextsConfig = TextsConfig()
    metrics: MetricsConfig = MetricsConfig()

    def sending(self) -> dict[str, Any] | None:
        """Returns what a process needs to send metrics by OTLP, as JSON with the values of the headers, which are
        secret; None: there is no receiver. A ``TelemetryConfig`` is made of it."""
        if self.metrics.endpoint is None:
            return None
        used = {"protocol", "service_name", "timeout_s", "metrics"}
        headers = {name: value.get_secret_value() for name, value in self.headers.items()}
        return {**self.model_dump(mode="json", include=used), "headers": headers}

    @model_validator(mode="after")
    def _check_endpoint(self) -> TelemetryConfig:
        for name, endpoint in (("endpoint", self.endpoint), ("metrics.endpoint", self.metrics.endpoint)):
            if endpoint is not None and self.protocol == "http" and not endpoint.startswith(("http://", "https://")):
                raise ValueError(f"{name}: must begin with http:// or https:// where protocol is http")
        return self

    @model_validator(mode="after")
    def _check_credentials(self) -> TelemetryConfig:
        for name, endpoint in (("endpoint", self.endpoint), ("metrics.endpoint", self.metrics.endpoint)):
            url = urlsplit(endpoint or "")
            if url.scheme == "http" and (self.headers or "@" in url.netloc) and not _is_loopback(url):
                raise ValueError(f"headers: credentials need https:// in {name}; http:// may be read on the way")
        return self


def _is_loopback(url: SplitResult) -> bool:
    """Returns whether a URL names this machine."""
    try:
        return url.hostname == "localhost" or ip_address(url.hostname or "").is_loopback
    except ValueError:
        return False
