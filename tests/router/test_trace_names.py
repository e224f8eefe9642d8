"""The names in traces do not change unseen, and those that are OpenTelemetry's are spelt as it spells them."""

from __future__ import annotations

from enum import StrEnum

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes

from router.ports.trace_names import Attribute, EventName, SpanName

SPANS = frozenset(
    {
        "access",
        "prompt",
        "route",
        "limits",
        "safety",
        "cache",
        "answer",
        "moderate",
        "generate",
        "queue",
        "prefill",
        "decode",
        "classify",
        "embed",
        "lookup",
        "batch",
        "step",
    }
)
ATTRIBUTES = frozenset(
    {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.request.stream",
        "gen_ai.request.max_tokens",
        "gen_ai.request.choice.count",
        "gen_ai.response.model",
        "gen_ai.response.finish_reasons",
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.cache_read.input_tokens",
        "error.type",
        "http.response.status_code",
        "manta.request.id",
        "manta.tenant",
        "manta.tier",
        "manta.priority",
        "manta.route.reason",
        "manta.cache.status",
        "manta.cache.reason",
        "manta.cache.age",
        "manta.cache.score",
        "manta.safety.decision",
        "manta.safety.stage",
        "manta.safety.action",
        "manta.safety.category",
        "manta.safety.check",
        "manta.safety.check.version",
        "manta.safety.policy.version",
        "manta.failovers",
        "manta.failover.kind",
        "manta.resumed_tokens",
        "manta.preemptions",
        "manta.step.number",
        "manta.step.sequences",
        "manta.step.prompt_tokens",
        "manta.batch.model",
        "manta.batch.count",
        "manta.batch.sequences",
        "manta.call.sequences",
    }
)
EVENTS = frozenset(
    {
        "manta.failover",
        "manta.cache",
        "manta.safety.verdict",
        "manta.preemption",
    }
)


@pytest.mark.parametrize(("names", "frozen"), [(SpanName, SPANS), (Attribute, ATTRIBUTES), (EventName, EVENTS)])
def test_no_name_changes_or_goes_since_others_search_by_them(names: type[StrEnum], frozen: frozenset[str]) -> None:
    assert frozenset(names) == frozen


def test_names_of_the_semantic_conventions_are_spelt_as_there() -> None:
    modules = (gen_ai_attributes, error_attributes, http_attributes)
    conventional = {value for each in modules for name, value in vars(each).items() if name.isupper()}
    assert {each for each in Attribute if not each.startswith("manta.")} <= conventional
