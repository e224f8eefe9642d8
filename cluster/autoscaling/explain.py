"""``explain``: describes a decision in words, with its numbers. ``manta scale explain TIER`` prints it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cluster.autoscaling.decision import Need, Reason, TierDecision, WhyNot

Numbers = Mapping[str, float]

KNOWN = 0.9
"""The part of the error budget's window from which on it is called known."""


def explain(decision: TierDecision) -> str:
    """Returns the decision in a few sentences: the target and its reason, the load, and why not more or fewer."""
    lines = [
        f"{decision.tier}: {_change(decision)}. {_because(decision)}",
        decision.detail,
        _state(decision.numbers),
        *(f"  {_need(need)}" for need in decision.needs if need.replicas > 0),
        f"Why not more: {_why(decision.why_not_more)}",
        f"Why not fewer: {_why(decision.why_not_fewer)}",
    ]
    return "\n".join(line for line in lines if line)


def _change(decision: TierDecision) -> str:
    target, previous = decision.target, decision.previous
    if target == previous:
        return f"{_replicas(target)}, unchanged"
    return f"{_replicas(target)}, {'up' if target > previous else 'down'} from {previous}"


def _replicas(count: float) -> str:
    return "1 replica" if count == 1 else f"{count:g} replicas"


def _because(decision: TierDecision) -> str:
    """Returns the reason of the target as a sentence."""
    for need in decision.needs:
        if need.reason is decision.reason:
            return f"{_SIGNALS[need.reason]}: {_need(need)}"
    for why in (decision.why_not_fewer, decision.why_not_more):
        if why.reason is decision.reason:
            return _why(why)
    return _why(WhyNot(decision.reason, decision.numbers))


def _state(numbers: Numbers) -> str:
    """Returns the state of replicas and requests as a sentence; nothing if the target was held without a look."""
    if "ready" not in numbers:
        return ""
    if "request_s" in numbers:
        return _follower_state(numbers)
    states = ("ready", "starting", "stuck", "draining", "warm")
    words = [f"{numbers[name]:g} {name}" for name in states if numbers.get(name)]
    stale = numbers["ready"] - numbers.get("fresh", 0)
    words += [f"{stale:g} with stale metrics"] if stale else []
    load = [
        f"{numbers['in_flight']:.0f} requests in flight, {numbers['queued_prompt_tokens']:.0f} prompt tokens queued"
    ]
    if "requests_per_s" in numbers:
        load.append(f"{numbers['requests_per_s']:.2f} requests/s arrive")
    if "headroom" in numbers:
        load.append(_headroom(numbers))
    if "burn" in numbers:
        load.append(_budget(numbers))
    if "predicted_ttft_s" in numbers:
        load.append(f"TTFT {numbers['predicted_ttft_s']:.2f} s predicted, {numbers['ttft_limit_s']:.3g} s allowed")
    if "predicted_itl_s" in numbers:
        load.append(f"ITL {numbers['predicted_itl_s']:.3f} s predicted, {numbers['slo_itl_s']:g} s allowed")
    if "slowness" in numbers:
        words.append(f"{numbers['slowness']:.2f} times slower than they report, by the latencies between tokens")
    return f"Replicas: {', '.join(words) or 'none'}. Load: {'; '.join(load)}."


def _headroom(numbers: Numbers) -> str:
    why = " as the flow is steady" if numbers.get("steady") else ""
    why = " as the flow falls along a line" if numbers.get("falling") else why
    return (
        f"headroom {numbers['headroom']:.3g} x the standard deviation of those within {numbers['slo_ttft_s']:g} s{why}"
    )


def _budget(numbers: Numbers) -> str:
    """Returns the state of the error budget."""
    known = "" if numbers["budget_known"] >= KNOWN else f" of the {numbers['budget_known']:.0%} that are known"
    return f"{numbers['burn']:.2f} times as many requests late or refused lately{known} as the objectives allow"


def _follower_state(numbers: Numbers) -> str:
    starting = f", {numbers['starting']:g} starting" if numbers["starting"] else ""
    return (
        f"Replicas: {numbers['ready']:g} ready{starting}. Load: {numbers['requests_per_s']:.2f} requests/s, each takes "
        f"{1000 * numbers['request_s']:.1f} ms of a replica, which may be busy for {numbers['utilisation']:.0%} of its "
        "time."
    )


def _need(need: Need) -> str:
    """Returns what one signal asks for."""
    measured = _MEASURED[need.reason].format(value=need.value, limit=need.limit, unit=need.unit)
    return f"{need.reason} asks for {need.replicas:.2f} replicas ({measured})."


def _why(why: WhyNot) -> str:
    """Returns a reason as a sentence, with the numbers that it has."""
    sentence = _SENTENCES[why.reason](why.numbers) if _complete(why) else _PLAIN[why.reason]
    by = why.by or (why.reason if why.reason in _SIGNALS else None)
    return f"{sentence} This is by {by}." if by else sentence


def _load_needs(numbers: Numbers) -> str:
    return f"The load needs {numbers['need']:.2f} replicas."


def _complete(why: WhyNot) -> bool:
    return why.reason in _SENTENCES and all(name in why.numbers for name in _NAMES[why.reason])


_SIGNALS: dict[Reason, str] = {
    Reason.BACKLOG: "The queue would take too long to prefill",
    Reason.KV_DEMAND: "Running and waiting requests need the KV cache",
    Reason.PREDICTED_TTFT: "A request that came now would wait too long for its first token",
    Reason.PREDICTED_ITL: "Tokens would come too slowly with all waiting requests running",
    Reason.OBSERVED_TTFT: "Requests waited too long for their first tokens",
    Reason.REFUSALS: "Requests were refused for want of capacity",
    Reason.FLOW: "Requests arrive at this rate",
    Reason.BATCH_DEADLINE: "Batch work would miss its deadline",
}

_MEASURED: dict[Reason, str] = {
    Reason.BACKLOG: "{value:.2f} s of prefill queued per replica, {limit:.2f} s allowed",
    Reason.KV_DEMAND: "{value:.0%} of the KV cache in demand, {limit:.0%} allowed",
    Reason.PREDICTED_TTFT: "{value:.2f} s predicted, {limit:.2f} s allowed",
    Reason.PREDICTED_ITL: "{value:.3f} s predicted, {limit:.3f} s allowed",
    Reason.OBSERVED_TTFT: "P99 of {unit} {value:.2f} s, {limit:.2f} s allowed",
    Reason.REFUSALS: "{value:.0%} of requests refused",
    Reason.FLOW: "{value:.2f} requests/s arrive, one replica serves {limit:.2f}",
    Reason.BATCH_DEADLINE: "{value:.0f} s of work, {limit:.0f} s to the deadline",
}

_PLAIN: dict[Reason, str] = {
    **{reason: f"{text}." for reason, text in _SIGNALS.items()},
    Reason.STUCK_STARTING: "Replicas that never became ready are made up for.",
    Reason.WAITING_ROOM: "Requests wait for a first replica.",
    Reason.FORECAST_FLOOR: "The forecast demand needs them.",
    Reason.MINIMUM: "This is the configured minimum.",
    Reason.MAXIMUM: "This is the configured maximum.",
    Reason.SCHEDULE: "A schedule sets this minimum now.",
    Reason.PINNED: "An operator has pinned the number.",
    Reason.GPU_BUDGET: "The pool has no more GPUs.",
    Reason.LOW_LOAD: "Fewer replicas meet the objectives.",
    Reason.IDLE: "No request has come.",
    Reason.STEADY: "The load does not ask for more.",
    Reason.DEAD_BAND: "The difference is within the dead band.",
    Reason.UNCONFIRMED: "One signal asks for more than the others support.",
    Reason.STARTING: "Replicas that start are expected to be enough.",
    Reason.UP_RATE: "The target was raised a moment ago.",
    Reason.SETTLING: "The target was changed a moment ago, and headroom alone asks for more.",
    Reason.DOWN_RATE: "The target was changed a moment ago.",
    Reason.STABILISING: "The need was higher a moment ago.",
    Reason.CONSOLIDATION: "The other replicas would miss an objective.",
    Reason.NO_FRESH_DATA: "The metrics are missing or stale, so the target is held.",
    Reason.CLOCK: "The clock went back, so the target is held for one interval.",
    Reason.BAD_INPUT: "The metrics make no sense, so the target is held.",
    Reason.NOT_CONFIGURED: "The autoscaler has no settings for it.",
    Reason.FOLLOWS: "It follows the requests that flow through it.",
}

_NAMES: dict[Reason, tuple[str, ...]] = {
    **dict.fromkeys(_SIGNALS, ("need",)),
    Reason.WAITING_ROOM: ("waiting", "cold_start_s"),
    Reason.FORECAST_FLOOR: ("least",),
    Reason.MINIMUM: ("least",),
    Reason.MAXIMUM: ("most", "need"),
    Reason.SCHEDULE: ("least",),
    Reason.PINNED: ("most",),
    Reason.GPU_BUDGET: ("wanted", "granted", "pool_gpus"),
    Reason.LOW_LOAD: ("peak",),
    Reason.IDLE: ("idle_s", "after_s"),
    Reason.STEADY: ("need",),
    Reason.UNCONFIRMED: ("asked", "confirmed"),
    Reason.STARTING: ("starting", "ready", "need", "cold_start_s"),
    Reason.UP_RATE: ("since_s", "period_s", "need"),
    Reason.SETTLING: ("need", "busy", "window_s"),
    Reason.DOWN_RATE: ("since_s", "period_s"),
    Reason.STABILISING: ("peak",),
    Reason.CONSOLIDATION: ("replicas", "value", "limit"),
    Reason.NO_FRESH_DATA: ("ready", "fresh"),
    Reason.FOLLOWS: ("need",),
    Reason.STUCK_STARTING: ("stuck",),
}
"""The numbers that the sentences of reasons need."""

_SENTENCES: dict[Reason, Callable[[Numbers], str]] = {
    **dict.fromkeys(_SIGNALS, _load_needs),
    Reason.WAITING_ROOM: lambda n: (
        f"{n['waiting']:g} requests wait for a first replica; a cold start takes {n['cold_start_s']:.0f} s."
    ),
    Reason.FORECAST_FLOOR: lambda n: f"The forecast demand needs {_replicas(n['least'])}.",
    Reason.MINIMUM: lambda n: f"The configured minimum is {_replicas(n['least'])}.",
    Reason.MAXIMUM: lambda n: f"The configured maximum is {_replicas(n['most'])}; the load needs {n['need']:.2f}.",
    Reason.SCHEDULE: lambda n: f"A schedule sets a minimum of {_replicas(n['least'])} now.",
    Reason.PINNED: lambda n: f"An operator has pinned {_replicas(n['most'])}.",
    Reason.GPU_BUDGET: lambda n: (
        f"The pool has {n['pool_gpus']:g} GPUs: {n['granted']:g} of {n['wanted']:g} wanted replicas fit beside the "
        "other tiers, by load and weight."
    ),
    Reason.LOW_LOAD: lambda n: f"The need was {n['peak']:.2f} replicas at most within the window.",
    Reason.IDLE: lambda n: f"No request has come for {n['idle_s']:.0f} s; the limit is {n['after_s']:.0f} s.",
    Reason.STEADY: _load_needs,
    Reason.UNCONFIRMED: lambda n: (
        f"One signal asks for {n['asked']:.1f} replicas, and the others support {n['confirmed']:.1f} at most."
    ),
    Reason.STARTING: lambda n: (
        f"{n['ready']:g} ready and {n['starting']:g} starting replicas are expected to be enough for a need of "
        f"{n['need']:.2f}; a cold start takes {n['cold_start_s']:.0f} s."
    ),
    Reason.UP_RATE: lambda n: (
        f"The target was raised {n['since_s']:.0f} s ago, and is raised every {n['period_s']:.0f} s at most; the load "
        f"needs {n['need']:.2f}."
    ),
    Reason.SETTLING: lambda n: (
        f"The load keeps {n['busy']:.2f} replicas busy and needs {n['need']:.2f} with headroom, which has to last for "
        f"{n['window_s']:.0f} s, since the target was changed a moment ago."
    ),
    Reason.DOWN_RATE: lambda n: (
        f"The target was changed {n['since_s']:.0f} s ago, and is lowered {n['period_s']:.0f} s after a change at the "
        "earliest."
    ),
    Reason.STABILISING: lambda n: f"The need was {n['peak']:.2f} replicas within the window, or it is not known yet.",
    Reason.CONSOLIDATION: lambda n: (
        f"With {_replicas(n['replicas'])}, {n['value']:.3g} is predicted where {n['limit']:.3g} is allowed."
    ),
    Reason.NO_FRESH_DATA: lambda n: (
        f"{n['fresh']:g} of {n['ready']:g} ready replicas have reported lately, so the target is held."
    ),
    Reason.FOLLOWS: lambda n: f"The requests that flow through it need {n['need']:.2f} replicas.",
    Reason.STUCK_STARTING: lambda n: f"{n['stuck']:g} replicas never became ready and are made up for.",
}
