"""The names in traces: of spans, their attributes and events. They are frozen, since others search by them.

Names with ``gen_ai`` and ``error`` are those of OpenTelemetry's semantic conventions for generative AI, as of November
2026, when none of them was declared stable. ``http`` is of those for HTTP. The others are ours. No name here is for the
text of a prompt or an answer.
"""

from __future__ import annotations

from enum import StrEnum


class SpanName(StrEnum):
    """The parts of a request. Those of a router are in the order of ``Pipeline.run``; MODERATE is within ANSWER. A
    replica has GENERATE, with QUEUE, PREFILL and DECODE. The parent of GENERATE is ANSWER, or SAFETY if the generation
    began beside the checks. CLASSIFY, EMBED and LOOKUP are calls of the classifier, the embedder and the semantic
    cache, whose parent is the stage that makes them, with QUEUE and BATCH for what is computed together with other
    calls. STEP is a step of the engine, in a trace of its own: PREFILL has a link to the one of the first token, DECODE
    to the one of the last."""

    ACCESS = "access"
    PROMPT = "prompt"
    ROUTE = "route"
    LIMITS = "limits"
    SAFETY = "safety"
    CACHE = "cache"
    ANSWER = "answer"
    MODERATE = "moderate"
    GENERATE = "generate"
    QUEUE = "queue"
    PREFILL = "prefill"
    DECODE = "decode"
    CLASSIFY = "classify"
    EMBED = "embed"
    LOOKUP = "lookup"
    BATCH = "batch"
    STEP = "step"


class Attribute(StrEnum):
    """The attributes of spans."""

    OPERATION = "gen_ai.operation.name"
    PROVIDER = "gen_ai.provider.name"
    REQUEST_MODEL = "gen_ai.request.model"
    REQUEST_STREAM = "gen_ai.request.stream"
    REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
    REQUEST_CHOICES = "gen_ai.request.choice.count"
    RESPONSE_MODEL = "gen_ai.response.model"
    FINISH_REASONS = "gen_ai.response.finish_reasons"
    TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
    INPUT_TOKENS = "gen_ai.usage.input_tokens"
    OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
    CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
    ERROR = "error.type"
    STATUS = "http.response.status_code"
    REQUEST_ID = "manta.request.id"
    TENANT = "manta.tenant"
    TIER = "manta.tier"
    PRIORITY = "manta.priority"
    ROUTE_REASON = "manta.route.reason"
    CACHE = "manta.cache.status"
    CACHE_REASON = "manta.cache.reason"
    CACHE_AGE_S = "manta.cache.age"
    CACHE_SCORE = "manta.cache.score"
    SAFETY = "manta.safety.decision"
    STAGE = "manta.safety.stage"
    ACTION = "manta.safety.action"
    CATEGORY = "manta.safety.category"
    CHECK = "manta.safety.check"
    CHECK_VERSION = "manta.safety.check.version"
    POLICY_VERSION = "manta.safety.policy.version"
    FAILOVERS = "manta.failovers"
    FAILOVER_KIND = "manta.failover.kind"
    RESUMED_TOKENS = "manta.resumed_tokens"
    PREEMPTIONS = "manta.preemptions"
    STEP = "manta.step.number"
    STEP_SEQUENCES = "manta.step.sequences"
    STEP_PROMPT_TOKENS = "manta.step.prompt_tokens"
    BATCH_MODEL = "manta.batch.model"
    BATCH_COUNT = "manta.batch.count"
    BATCH_SEQUENCES = "manta.batch.sequences"
    CALL_SEQUENCES = "manta.call.sequences"


class EventName(StrEnum):
    """The events of spans."""

    FAILOVER = "manta.failover"
    CACHE = "manta.cache"
    VERDICT = "manta.safety.verdict"
    PREEMPTION = "manta.preemption"
