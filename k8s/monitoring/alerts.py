"""The alerts that are no objectives: what precedes a broken promise, and what breaks without anyone waiting for it."""

from __future__ import annotations

from collections.abc import Sequence

from k8s.monitoring.metric_names import (
    BREAKER_OPEN,
    BUILD_INFO,
    FAILOVERS,
    GENERATED_TOKENS,
    JOURNAL_BYTES,
    KV_BLOCKS,
    LOST_RECORDS,
    OLDEST_WAIT,
    PREEMPTIONS,
    PROMPT_TOKENS,
    QUEUE_WAIT,
    READY_REPLICAS,
    REPAIRS,
    ROUTER_BUILD_INFO,
    RUNNING,
    SAFETY_DECISIONS,
    START_FAILURES,
    TARGET_REPLICAS,
    UNREADABLE_POLICIES,
    WAITING,
    bucket_of,
    count_of,
)
from k8s.monitoring.objectives import objectives
from k8s.monitoring.rule import NONE, PAGE, TICKET, Alert, Group

QUEUE_WAIT_S = 5.0
"""Seconds that the slowest twentieth of the requests may wait."""
OLDEST_WAIT_S = 60.0
"""Seconds that a single request may wait."""
PROCESS = "WorkerId"
"""Ray's label for the process that a series is of."""
UNNAMED = f'{PROCESS}="", application=""'
"""Of what a process of Ray, or its agent, has put together without labels, beyond 2,000 series of a metric. A mark of
OpenTelemetry's has one name in a process and another in the agent, and from a process its value is empty."""


def added(counter: str, labels: str, window: str) -> str:
    """Returns what a rare event has added to ``counter`` in ``window``. Ray exports a series for each process, with its
    first value, of which ``increase`` knows nothing, and keeps it when the process has ended. So a process that counts
    once and ends is a series that never rises: what is new is looked for in each series, and summed then. A series that
    was missing for a moment is not new, and one whose node has gone since still is."""
    new = f"(last_over_time({counter}[{window}]) unless last_over_time({counter}[{window}] offset {window}))"
    return f"sum by ({labels}) (increase({counter}[{window}]) > 0 or {new}) > 0"


def stuck_replicas() -> str:
    """Returns the replicas that have work and get on with none of it. Prompt tokens are counted with each step, so that
    a long prompt gets on, too, however long it takes to its first token. A replica that hangs is not hidden by others
    of its tier."""

    def of_each(series: str) -> str:
        return f"sum by (application, tier, {PROCESS}) ({series})"

    progress = " ".join(f"unless {of_each(f'rate({each}[5m])')} > 0" for each in (GENERATED_TOKENS, PROMPT_TOKENS))
    return f"{of_each(RUNNING)} + {of_each(WAITING)} > 0 {progress}"


def queue_alerts() -> list[Alert]:
    """Returns the alerts about requests that get on too slowly."""
    waits = f"sum by (application, tier, class, le) (rate({bucket_of(QUEUE_WAIT)}{{class!='batch'}}[10m]))"
    return [
        Alert(
            "MantaWorkWithoutTokens",
            f"count by (application, tier) ({stuck_replicas()})",
            PAGE,
            "5m",
            "Replicas of tier {{ $labels.tier }} have requests and get on with none.",
            "{{ $value }} of them have neither read nor written a token for 10 minutes.",
        ),
        Alert(
            "MantaQueueWait",
            f"histogram_quantile(0.95, {waits}) > {QUEUE_WAIT_S:g}",
            TICKET,
            "10m",
            "Requests of class {{ $labels.class }} wait for tier {{ $labels.tier }}.",
            "The slowest twentieth waits {{ $value | humanizeDuration }} before its first step.",
        ),
        Alert(
            "MantaRequestStarved",
            f"max by (application, tier, class) ({OLDEST_WAIT}{{class!='batch'}}) > {OLDEST_WAIT_S:g}",
            TICKET,
            "2m",
            "A request of class {{ $labels.class }} is not admitted to tier {{ $labels.tier }}.",
            "It has waited for {{ $value | humanizeDuration }} on a replica.",
        ),
    ]


def kv_cache_alerts() -> list[Alert]:
    """Returns the alerts about KV caches that are too small for what comes."""
    used = f'{KV_BLOCKS}{{state="used"}} / ignoring (state) {KV_BLOCKS}{{state="total"}}'
    preempted = f"sum by (application, tier) (increase({PREEMPTIONS}[10m]))"
    admitted = f"sum by (application, tier) (increase({count_of(QUEUE_WAIT)}[10m]))"
    return [
        Alert(
            "MantaKVPressure",
            f"max by (application, tier) ({used}) > 0.95",
            TICKET,
            "15m",
            "The KV cache of a replica of tier {{ $labels.tier }} is full.",
            "{{ $value | humanizePercentage }} of its blocks are held by running sequences.",
        ),
        Alert(
            "MantaPreemptionStorm",
            f"{preempted} > 0.2 * {admitted}\nand {preempted} > 20",
            TICKET,
            "5m",
            "Tier {{ $labels.tier }} preempts sequences instead of finishing them.",
            "{{ $value | humanize }} preemptions in 10 minutes, more than one for each five requests.",
        ),
    ]


def replica_alerts() -> list[Alert]:
    """Returns the alerts about replicas that are lost or do not start."""
    return [
        Alert(
            "MantaFailovers",
            f'sum by (application, tier) (increase({FAILOVERS}{{kind!="moved"}}[15m])) > 10',
            TICKET,
            "1m",
            "Replicas of tier {{ $labels.tier }} are lost.",
            "{{ $value | humanize }} requests went on elsewhere in 15 minutes.",
        ),
        Alert(
            "MantaReplicasMissing",
            f"max by (application, tier) ({TARGET_REPLICAS}) - max by (application, tier) ({READY_REPLICAS}) > 0",
            TICKET,
            "30m",
            "Tier {{ $labels.tier }} has fewer replicas than it should.",
            "{{ $value }} replicas have not started for 30 minutes.",
        ),
        Alert(
            "MantaReplicaStartFails",
            added(START_FAILURES, "application, tier", "30m"),
            TICKET,
            "5m",
            "Replicas of tier {{ $labels.tier }} do not start.",
            "{{ $value | humanize }} have failed, and Serve tries again.",
        ),
    ]


def dependency_alerts() -> list[Alert]:
    """Returns the alerts about what routers depend on."""
    inspected = f"sum by (application) (rate({SAFETY_DECISIONS}[10m]))"
    unscanned = f'sum by (application) (rate({SAFETY_DECISIONS}{{decision="unscanned"}}[10m]))'
    return [
        Alert(
            "MantaBreakerOpen",
            f"max by (application, dependency) (avg_over_time({BREAKER_OPEN}[5m])) > 0.5",
            PAGE,
            "2m",
            "A router does without {{ $labels.dependency }}.",
            "Its circuit breaker was open for {{ $value | humanizePercentage }} of 5 minutes.",
        ),
        Alert(
            "MantaGuardUnscanned",
            f"{unscanned} / {inspected} > 0.05",
            PAGE,
            "10m",
            "Requests pass or are refused without having been inspected.",
            "A check did not run for {{ $value | humanizePercentage }} of the requests that the guard saw.",
        ),
    ]


def data_alerts() -> list[Alert]:
    """Returns the alerts about data that cannot be written, read or relied upon."""
    waiting = f"sum by (application, log) (min_over_time({JOURNAL_BYTES}[15m]))"
    return [
        Alert(
            "MantaJournalGrowing",
            f"{waiting} > 0\nand sum by (application, log) (deriv({JOURNAL_BYTES}[15m])) > 0",
            TICKET,
            "15m",
            "Entries of the {{ $labels.log }} log wait on disks, and more come than go.",
            "{{ $value | humanize1024 }}B at least have been waiting for 15 minutes.",
        ),
        Alert(
            "MantaRecordsLost",
            added(LOST_RECORDS, "application, log", "1h"),
            PAGE,
            "0s",
            "Entries of the {{ $labels.log }} log are lost.",
            "A router had no room for {{ $value | humanize }} entries on its disk.",
        ),
        Alert(
            "MantaPolicyUnreadable",
            f"sum by (application) (increase({UNREADABLE_POLICIES}[15m])) > 0",
            TICKET,
            "15m",
            "Routers cannot read a stored safety policy.",
            "They go on with the policy that they had. Another release has written it, or it is damaged.",
        ),
        Alert(
            "MantaCacheRepaired",
            added(REPAIRS, "application, tier", "1h"),
            TICKET,
            "0s",
            "A replica of tier {{ $labels.tier }} has replaced its KV cache.",
            "Its bookkeeping was inconsistent, which is a bug of the engine.",
        ),
    ]


def watch_alerts() -> list[Alert]:
    """Returns the alerts about the alerting itself, and about a service that no router tells of."""
    # Routers of a release without build info count by their journals: rules change before the routers do.
    routers = f"{ROUTER_BUILD_INFO} or {JOURNAL_BYTES}"
    return [
        Alert(
            "MantaMetricsMissing",
            f"absent({routers}) or absent({BUILD_INFO})",
            PAGE,
            "5m",
            "Prometheus reads no metrics of any router, or of any replica.",
            "All of them are gone, or Prometheus does not reach them. Other alerts cannot fire.",
        ),
        Alert(
            "MantaSeriesLost",
            f'count({{__name__=~"ray_manta_.+", {UNNAMED}}}) > 0',
            TICKET,
            "5m",
            "Ray has no room for further series of a metric.",
            "{{ $value }} series have no labels: what they stand for is in no panel and no rule.",
        ),
        Alert(
            "MantaRoutersMissing",
            f"count by (application) ({BUILD_INFO}) unless on (application) ({routers})",
            PAGE,
            "2m",
            "No router of the application {{ $labels.application }} reports.",
            "{{ $value }} of its replicas do. Clients get connection errors, or a 503 of the proxy.",
        ),
        Alert(
            "MantaDeadMansSwitch",
            "vector(1)",
            NONE,
            "0s",
            "Always fires.",
            "Alertmanager sends it on to a service that alerts when it stops.",
        ),
    ]


def groups() -> Sequence[Group]:
    """Returns all rules, in the order in which they are evaluated."""
    promises = objectives()
    return [
        Group("manta-objectives", [each for objective in promises for each in objective.recordings()]),
        Group("manta-burn-rates", [each for objective in promises for each in objective.alerts()]),
        Group("manta-load", [*queue_alerts(), *kv_cache_alerts()]),
        Group("manta-faults", [*replica_alerts(), *dependency_alerts(), *data_alerts()]),
        Group("manta-watch", watch_alerts()),
    ]
