"""Messages of lanes: every delta, request and refusal comes out as it went in, as builtins alone."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cluster.lanes.lane_messages
from cluster.lanes.dataclass_codec import VersionMismatchError
from cluster.lanes.lane_messages import (
    LaneReader,
    first_lane_item,
    is_last,
    lane_item,
    pack,
    pack_refusal,
    pack_request,
    unpack_refusal,
    unpack_request,
)
from engine.api import (
    BeamSearch,
    ContextLengthError,
    Conversation,
    Delta,
    EngineDeadError,
    EngineError,
    FinishReason,
    GenerationRequest,
    Grammar,
    Logprob,
    Message,
    ModelInfo,
    OverloadedError,
    Priority,
    RequestError,
    SamplingParams,
    TokenLogprobs,
    ToolCall,
    Usage,
)
from router.ports.replica_load import ReplicaLoad
from tests.cluster.engines import sent

MODEL = ModelInfo("model", 128, 256)
LOAD = ReplicaLoad(1, 2, 3, 4, 0.5, 1, (10, 0, 7), (0, 900, 0), 0.01, 0.001, 0.0005, lanes=3)

texts = st.text(max_size=5)
counts = st.integers(0, 2**40)
tokens = st.lists(st.integers(0, 2**20), max_size=4).map(tuple)
logprobs = st.builds(Logprob, counts, texts, st.binary(max_size=4), st.floats(-50, 0))
token_logprobs = st.lists(
    st.builds(TokenLogprobs, logprobs, st.lists(logprobs, max_size=3).map(tuple), st.integers(1, 9)), max_size=2
).map(tuple)
deltas = st.builds(
    Delta,
    texts,
    tokens,
    texts,
    st.none() | st.sampled_from(FinishReason),
    st.none() | st.builds(Usage, counts, counts, counts),
    st.none() | texts,
    st.none() | token_logprobs,
    st.integers(0, 127),
    st.none() | token_logprobs,
    st.none() | st.floats(-100, 0),
)


def reader() -> LaneReader:
    return LaneReader(sent(first_lane_item(LOAD, MODEL))[2])


@given(st.lists(deltas, max_size=3))
def test_deltas_come_out_of_a_lane_as_they_went_in(before: list[Delta]) -> None:
    load, rows = sent(lane_item(LOAD, pack(before)))
    assert [reader().delta(row) for row in rows] == before
    assert [is_last(row) for row in rows] == [delta.last for delta in before]
    assert reader().load(load) == LOAD


def test_plain_text_travels_as_three_values() -> None:
    assert pack([Delta("r", (5,), " tok")]) == [("r", (5,), " tok")]


def test_the_score_of_a_beam_arrives() -> None:
    (row,) = pack([Delta("r", (5,), "x", FinishReason.STOP, score=-0.25)])
    assert reader().delta(sent(row)).score == -0.25


def test_the_header_names_the_model() -> None:
    assert reader().model == MODEL


def test_a_lane_of_another_protocol_is_refused() -> None:
    header = first_lane_item(LOAD, MODEL)[2]
    with pytest.raises(VersionMismatchError, match="protocol 2"):
        LaneReader({**header, "protocol": 2})


def test_an_older_router_reads_what_it_knows_of_a_newer_replica() -> None:
    header = first_lane_item(LOAD, MODEL)[2]
    schema = {**header["schema"], "ReplicaLoad": ("heat", *header["schema"]["ReplicaLoad"])}
    schema["Delta"] = ("request_id", "token_ids", "text", "mood", *header["schema"]["Delta"][3:], "colour")
    older = LaneReader({**header, "schema": schema, "model": {**header["model"], "modality": "text"}, "region": "eu"})
    assert older.delta(("r", (1,), "x", "calm", "stop", (1, 2, 3))) == Delta(
        "r", (1,), "x", FinishReason.STOP, Usage(1, 2, 3)
    )
    assert older.load((0.9, 1, 2, 3, 4, 0.5)) == ReplicaLoad(1, 2, 3, 4, 0.5)
    assert older.model == MODEL


def test_a_newer_router_makes_do_with_what_an_older_replica_sends() -> None:
    header = first_lane_item(LOAD, MODEL)[2]
    schema = {**header["schema"], "ReplicaLoad": ("running", "waiting")}
    schema["Delta"] = ("request_id", "token_ids", "text", "finish_reason", "usage", "error")
    newer = LaneReader({**header, "schema": schema})
    assert newer.delta(("r", (1,), "x", "error", None, "broken")) == Delta(
        "r", (1,), "x", FinishReason.ERROR, error="broken"
    )
    assert newer.load((1, 2)) == ReplicaLoad(1, 2)


optional_texts = st.none() | texts
messages = st.builds(
    Message,
    texts,
    texts,
    st.lists(st.builds(ToolCall, texts, texts, optional_texts), max_size=2).map(tuple),
    optional_texts,
    optional_texts,
    optional_texts,
)
conversations = st.builds(
    Conversation,
    st.lists(messages, max_size=2).map(tuple),
    st.lists(texts, max_size=2).map(tuple),
    st.booleans(),
    template_kwargs=st.lists(st.tuples(texts, texts), max_size=2).map(tuple),
)
grammars = st.builds(Grammar, st.sampled_from(["regex", "lark"]), texts, texts, texts)
beams = st.builds(BeamSearch, st.integers(1, 8), st.floats(-5, 5), st.sampled_from([True, False, "never"]))
samplings = st.builds(
    SamplingParams,
    temperature=st.floats(0, 2),
    top_k=st.integers(-1, 50),
    logit_bias=st.dictionaries(counts, st.floats(-100, 100), max_size=2),
    bad_words=st.lists(st.text(min_size=1, max_size=3), max_size=2).map(tuple),
    allowed_token_ids=st.none() | tokens.filter(bool),
    logprobs=st.none() | st.integers(0, 20),
    logprobs_mode=st.sampled_from(["raw", "processed"]),
    grammar=st.none() | grammars,
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop=st.lists(st.text(min_size=1, max_size=3), max_size=2).map(tuple),
    stop_token_ids=tokens,
    ignore_eos=st.booleans(),
) | st.builds(SamplingParams, beam=beams, n=st.just(1), max_tokens=st.integers(1, 50))
requests = st.builds(
    GenerationRequest,
    texts,
    texts | tokens | conversations,
    samplings,
    cache_salt=texts,
    tenant=texts,
    priority=st.sampled_from(Priority),
    deadline_s=st.none() | st.floats(0.1, 100),
)


@given(requests)
def test_a_request_comes_out_as_it_went_in(before: GenerationRequest) -> None:
    after = unpack_request(sent(pack_request(before)))
    assert after == before
    grammar, arrived = before.sampling.grammar, after.sampling.grammar
    if grammar is not None and arrived is not None:  # neither takes part in comparison
        assert (arrived.param, arrived.label) == (grammar.param, grammar.label)


def test_a_request_travels_without_its_defaults() -> None:
    packed = pack_request(GenerationRequest("r", "hi", SamplingParams(max_tokens=3)))
    assert packed["request"] == {"request_id": "r", "prompt": "hi", "sampling": {"max_tokens": 3}}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mood": "calm"}, "GenerationRequest has no mood here"),
        ({"sampling": {"dry_multiplier": 0.8}}, "SamplingParams has no dry_multiplier here"),
        ({"sampling": {"grammar": {"kind": "structural_tag", "source": "{}"}}}, "'structural_tag' is unknown here"),
        ({"priority": -2}, "Priority has no -2 here"),
        ({"sampling": {"temperature": 1000.0}}, "temperature must be between 0 and 100"),
    ],
)
def test_a_replica_refuses_what_its_release_cannot_honour(changes: dict[str, Any], complaint: str) -> None:
    packed = pack_request(GenerationRequest("r", "hi"))
    with pytest.raises(VersionMismatchError, match=complaint):
        unpack_request({**packed, "request": packed["request"] | changes})


def test_a_request_of_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack_request(GenerationRequest("r", "hi"))
    monkeypatch.setattr(cluster.lanes.lane_messages, "PROTOCOL", 2)
    with pytest.raises(VersionMismatchError, match="protocol 1"):
        unpack_request(packed)


@pytest.mark.parametrize(
    "refusal",
    [
        RequestError("no", "top_k", "odd"),
        ContextLengthError("too long", "messages", prompt_tokens=5_000),
        OverloadedError("full", 2.5),
        EngineDeadError("dead"),
        EngineError("something"),
        VersionMismatchError("unknown"),
    ],
    ids=lambda refusal: type(refusal).__name__,
)
def test_a_refusal_comes_out_as_it_went_in(refusal: EngineError | VersionMismatchError) -> None:
    after = unpack_refusal(sent(pack_refusal(refusal)))
    assert type(after) is type(refusal)
    assert (str(after), vars(after)) == (str(refusal), vars(refusal))


def test_a_refusal_that_is_unknown_here_is_the_nearest_that_is_known() -> None:
    class QuotaError(RequestError):
        """Of a newer release."""

    after = unpack_refusal(sent(pack_refusal(QuotaError("enough", "n", "quota"))))
    assert (type(after), vars(after)) == (RequestError, {"message": "enough", "param": "n", "code": "quota"})


# By class, the defaults of protocol 1. Fields may be added here freely. One whose default or meaning changes is misread
# by a side of another release, since defaults do not travel: raise PROTOCOL with it.
DEFAULTS: dict[type[Any], dict[str, Any]] = {
    Delta: {
        "finish_reason": None,
        "usage": None,
        "error": None,
        "logprobs": None,
        "choice": 0,
        "prompt_logprobs": None,
        "score": None,
    },
    TokenLogprobs: {"rank": 1},
    GenerationRequest: {
        "cache_salt": "",
        "resume": (),
        "tenant": "",
        "priority": Priority.STANDARD,
        "deadline_s": None,
        "reserve": False,
        "model_version": "",
    },
    BeamSearch: {"width": 4, "length_penalty": 1.0, "early_stopping": False, "do_sample": False},
    SamplingParams: {
        "n": 1,
        "best_of": None,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "typical_p": 1.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "no_repeat_ngram_size": 0,
        "logprobs": None,
        "prompt_logprobs": None,
        "logprobs_mode": "raw",
        "min_tokens": 0,
        "seed": None,
        "max_tokens": None,
        "stop": (),
        "stop_token_ids": (),
        "ignore_eos": False,
    },
}


@pytest.mark.parametrize("kind", DEFAULTS, ids=lambda kind: kind.__name__)
def test_the_defaults_of_what_travels_are_those_of_the_protocol(kind: type[Any]) -> None:
    now = {field.name: field.default for field in fields(kind) if field.default is not MISSING}
    assert now | DEFAULTS[kind] == now


def test_the_context_of_a_trace_comes_along_where_a_release_without_traces_ignores_it() -> None:
    context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    traced = GenerationRequest("q", "hi", trace_context=context, trace_state="vendor=1")
    packed = pack_request(traced)

    assert unpack_request(sent(packed)) == traced
    assert not {"trace_context", "trace_state"} & packed["request"].keys()
    assert not {"trace", "tracestate"} & pack_request(GenerationRequest("q", "hi")).keys()


def test_what_admission_adds_comes_along_where_an_older_release_ignores_it() -> None:
    request = GenerationRequest("q", "hi", ttft_slo_s=2.5, refused_before=(3, 0, 1), surplus=True)
    packed = pack_request(request)

    assert unpack_request(sent(packed)) == request
    assert not {"ttft_slo_s", "refused_before", "surplus"} & packed["request"].keys()


def test_the_number_of_an_attempt_comes_along_where_an_older_release_ignores_it() -> None:
    again = GenerationRequest("q-1", "hi", attempt=1)
    packed = pack_request(again)

    assert unpack_request(sent(packed)) == again
    assert "attempt" not in packed["request"]
    assert "attempt" not in pack_request(GenerationRequest("q", "hi"))
