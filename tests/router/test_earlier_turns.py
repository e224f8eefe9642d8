"""Requests over HTTP whose earlier turns a policy drops: the messages that the engine gets, the answer's headers, and
the safety record in the ledger."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api import Conversation, Message, SamplingParams, ToolCall
from router.documents import ContextPassage, RetrievedContext, Source
from router.inference_request import InferenceRequest
from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from router.prompts.conversation_units import last_user_place
from router.prompts.earlier_turns import earlier_turns, without_turns
from safety.api import Passage, Ruling, Subject, TextUse
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from tests.router.conversations import conversations
from tests.router.guarded import CHAT, CONFIG, TEXT, Guarded, texts_of
from tests.router.policies import Policies
from tests.router.served import KEY, Served
from tests.safety.scripted_classifier import ScriptedClassifier

SYSTEM = {"role": "system", "content": "You are a clerk."}
LAST = {"role": "user", "content": "And on Mondays?"}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str | None, *calls: str, arguments: str = "{}") -> dict[str, Any]:
    function = {"name": "look", "arguments": arguments}
    made = [{"id": call, "type": "function", "function": function} for call in calls]
    return {"role": "assistant", "content": text} | ({"tool_calls": made} if made else {})


def result(text: str, call: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call, "content": text}


def read_by_model(guarded: Guarded) -> list[tuple[str, str]]:
    """The roles and contents of the messages that the engine got last."""
    prompt = guarded.served.backend.requests[-1].prompt
    assert isinstance(prompt, Conversation)
    return [(message.role, message.content) for message in prompt.messages]


HEAD = [SYSTEM, user("When is it open?"), assistant("At nine.")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("refusal", [[], [assistant("This request is not allowed.")]], ids=["unanswered", "refused"])
def test_a_conversation_goes_on_after_a_message_that_was_blocked(
    guarded: Guarded, refusal: list[dict[str, Any]], stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    guarded.policies.set(earlier_turns="drop")
    blocked = [*HEAD, user("HARM my-secret-word")]
    first = guarded.post(CHAT, {"messages": blocked, "stream": stream})
    answer = guarded.post(CHAT, {"messages": [*blocked, *refusal, LAST], "stream": stream})

    assert (first.status_code, first.json()["error"]["param"]) == (400, "messages[3].content")
    assert answer.status_code == 200
    assert next(iter(texts_of(answer, stream).values()))[1] == "stop"
    assert answer.headers["x-manta-safety"] == "redacted; dropped_turns=1; why=classifier@scripted-1:violence"
    assert read_by_model(guarded) == [(each["role"], each["content"]) for each in (*HEAD, LAST)]
    entry = guarded.entries()[-1]
    assert (entry["outcome"], entry["safety"]["decision"]) == ("finished", "redacted")
    assert entry["safety"]["verdicts"] == ["classifier@scripted-1:redact:violence:0.970"]
    assert "my-secret-word" not in json.dumps(guarded.entries()) + caplog.text + str(answer.headers)


def test_what_is_refused_anyway_is_in_the_ledger_as_blocked(guarded: Guarded) -> None:
    guarded.policies.set(earlier_turns="drop")
    guarded.post(CHAT, {"messages": [user("HARM"), assistant("No."), user("HARM again")]})

    safety = guarded.entries()[-1]["safety"]
    assert (safety["decision"], safety["verdicts"]) == ("blocked", ["classifier@scripted-1:block:violence:0.970"] * 2)


def test_an_answer_that_is_halted_names_no_reason_of_a_dropped_turn(guarded: Guarded) -> None:
    guarded.policies.set(earlier_turns="drop", phrases={"block": ["wörld"]}, content_answers=None)
    answer = guarded.post(CHAT, {"messages": [user("HARM"), assistant("No."), LAST]})

    assert answer.json()["choices"][0]["finish_reason"] == "content_filter"
    assert answer.headers["x-manta-safety"] == "blocked"


class NotingGuard(PolicyGuard):
    """Notes the turns of the passages that it inspects."""

    turns: list[int | None]

    async def inspect(
        self,
        subject: Subject,
        passages: Sequence[Passage],
        tools: Sequence[str] = (),
        *,
        use: TextUse = TextUse.GENERATION,
    ) -> Ruling:
        self.turns = [passage.turn for passage in passages]
        return await super().inspect(subject, passages, tools, use=use)


def test_turns_are_looked_for_only_where_the_policy_may_drop_them() -> None:
    policies = Policies()
    guard = NotingGuard(policies, Parts(ScriptedClassifier()))
    served = Served(CONFIG, MemoryStore(SystemClock()), guard)
    body = {"model": "fast", "messages": [user("Hi"), assistant("Hello."), LAST]}
    found = []
    for setting in ("block", "drop"):
        policies.set(earlier_turns=setting)
        served.http.post(CHAT, json=body, headers={"authorization": f"Bearer {KEY}"})
        found.append(guard.turns)
    served.stop()

    assert found == [[None, None, None], [1, 1, None]]


def test_by_default_the_conversation_is_blocked_for_ever(guarded: Guarded) -> None:
    answer = guarded.post(CHAT, {"messages": [user("HARM"), assistant("No."), LAST]})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages[0].content")
    assert answer.headers["x-manta-safety"] == "blocked"
    assert not guarded.served.backend.requests


@pytest.mark.parametrize(
    "turn",
    [
        [user("HARM"), assistant(None, "c1"), result("fine", "c1"), assistant("Done.")],
        [user("Look"), assistant(None, "c1", arguments='{"q": "HARM"}'), result("fine", "c1"), assistant("Done.")],
        [user("Look"), assistant(None, "c1", "c2"), result("fine", "c2"), result("ATTACK", "c1")],
        [user("Look"), assistant(None, "c1"), result("fine", "c1"), assistant("HARM")],
        [user("Look"), {"role": "assistant", "content": "Yes", "reasoning_content": "HARM"}],
        [user("Look"), {"role": "user", "content": "x", "name": "HARM 4111111111111111"}],
    ],
)
def test_a_turn_with_calls_is_dropped_whole_whatever_of_it_is_blocked(
    guarded: Guarded, turn: list[dict[str, Any]]
) -> None:
    guarded.policies.set(earlier_turns="drop")
    kept = [user("First"), assistant(None, "c1"), result("one", "c1"), assistant("Well.")]
    answer = guarded.post(CHAT, {"messages": [SYSTEM, *kept, *turn, LAST]})

    assert answer.status_code == 200, answer.text
    expected = [SYSTEM, *kept, *(turn[:1] if turn[1]["role"] == "user" else []), LAST]
    assert read_by_model(guarded) == [(each["role"], each["content"] or "") for each in expected]


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([user("Hello"), user("HARM")], 1),
        ([user("HARM"), assistant("No."), user("HARM again")], 2),
        ([{"role": "system", "content": "a bomb"}, user("HARM"), LAST], 0),
        ([user("HARM"), {"role": "developer", "content": "a bomb"}, LAST], 1),
        ([user("HARM"), LAST, assistant(None, "c"), result("ATTACK", "c")], 3),
        ([assistant("HARM"), user("Hello"), assistant("Hi"), LAST], 0),
        ([user("HARM"), assistant(None, "c"), LAST, result("late", "c")], 0),
        ([user("HARM"), assistant(None, "c"), user("x"), assistant("1"), result("late", "c"), assistant("2"), LAST], 0),
        ([*[user(f"HARM {n}") for n in range(9)], LAST], 0),
    ],
    ids=["last", "both", "system", "developer", "last result", "before the first", "under way", "late result", "many"],
)
@pytest.mark.parametrize("on_block", ["error", "answer"])
def test_what_is_in_no_earlier_turn_blocks_the_request(
    guarded: Guarded, messages: list[dict[str, Any]], field: int, on_block: str
) -> None:
    guarded.policies.set(earlier_turns="drop", phrases={"block": ["bomb"]}, on_block=on_block)
    answer = guarded.post(CHAT, {"messages": messages})

    assert answer.headers["x-manta-safety"] == "blocked"
    assert answer.status_code == (400 if on_block == "error" else 200)
    assert on_block == "answer" or answer.json()["error"]["param"] == f"messages[{field}].content"
    assert not guarded.served.backend.requests


@pytest.mark.parametrize("mode", ["dead", "slow", "nonsense", "short", "broken"])
def test_a_check_that_failed_drops_nothing(guarded: Guarded, mode: str) -> None:
    messages = [user(f"What of {mode}?"), assistant("Well."), LAST]
    guarded.classifier.mode = mode
    guarded.policies.set(earlier_turns="drop")
    closed = guarded.post(CHAT, {"messages": messages})
    guarded.policies.set(earlier_turns="drop", when_unavailable="pass")
    opened = guarded.post(CHAT, {"messages": messages})

    assert (closed.status_code, closed.json()["error"]["code"]) == (503, "safety_unavailable")
    assert (opened.status_code, opened.headers["x-manta-safety"]) == (200, "unscanned")
    assert len(read_by_model(guarded)) == 3


def test_several_turns_are_dropped_and_their_reasons_are_told_once(guarded: Guarded) -> None:
    policy: dict[str, Any] = {
        "phrases": {"block": ["bomb"]},
        "secrets": {"requests": "block"},
        "pii": {"requests": "redact"},
    }
    guarded.policies.set(earlier_turns="drop", **policy)
    turns = [user("HARM"), user("HARM again"), user("a bomb"), user("Hello"), user("I am ann@example.com")]
    answer = guarded.post(CHAT, {"messages": turns})

    why = "classifier@scripted-1:violence, phrases:BLOCKED_PHRASE"  # no digest of the tenant's list
    assert answer.headers["x-manta-safety"] == f"redacted; dropped_turns=3; why={why}"
    assert read_by_model(guarded) == [("user", "Hello"), ("user", "I am <EMAIL_ADDRESS>")]


def test_the_usage_and_the_assembly_are_those_of_what_the_model_read(guarded: Guarded) -> None:
    guarded.policies.set(earlier_turns="drop")
    messages = [user("HARM " + "and more " * 50), assistant("No."), LAST]
    asked = guarded.post(CHAT, {"messages": messages, "include_assembly": True})
    alone = guarded.post(CHAT, {"messages": [LAST], "include_assembly": True})

    assert asked.status_code == 200, asked.text
    assert asked.json()["usage"] == alone.json()["usage"]
    assert asked.json()["usage"]["prompt_details"]["assembly"] == [LAST]


def test_scores_of_the_request_are_those_of_what_the_model_read(guarded: Guarded) -> None:
    guarded.policies.set(earlier_turns="drop")
    asked = {"model": "omni-moderation-latest", "policy": {"input": {"mode": "block"}}}
    answer = guarded.post(CHAT, {"messages": [user("HARM"), assistant("No."), LAST], "moderation": asked})

    assert answer.status_code == 200, answer.text


def test_a_text_prompt_has_no_earlier_turns(guarded: Guarded) -> None:
    guarded.policies.set(earlier_turns="drop")

    assert guarded.post(TEXT, {"prompt": ["HARM", "And now?"]}).status_code == 400


def request_of(messages: list[Message], template: int = 0, context: RetrievedContext | None = None) -> InferenceRequest:
    return InferenceRequest(
        "fast",
        [Conversation(tuple(messages))],
        SamplingParams(),
        "messages",
        writer=lambda stamp: NotImplemented,
        template_messages=template,
        context=context,
    )


def left_of(request: InferenceRequest, dropped: set[int]) -> list[Message]:
    prompt = without_turns(request, earlier_turns(request), dropped).prompts[0]
    assert isinstance(prompt, Conversation)
    return list(prompt.messages)


def answers_together(places: Sequence[int], messages: Sequence[Message]) -> set[tuple[int, int]]:
    """The places of messages of the assistant of which one comes right after the other."""
    return {(a, b) for a, b in pairwise(places) if messages[a].role == messages[b].role == "assistant"}


@settings(max_examples=300, deadline=None)
@given(messages=conversations(), template=st.integers(0, 3), data=st.data())
def test_what_is_left_is_a_valid_conversation(messages: list[Message], template: int, data: st.DataObject) -> None:
    fixed = frozenset(range(min(template, len(messages))))
    request = request_of(messages, template)
    turns = earlier_turns(request)
    dropped = data.draw(st.sets(st.sampled_from(sorted(set(turns.values())))) if turns else st.just(set()))

    left = left_of(request, dropped)

    kept = [place for place in range(len(messages)) if turns.get(place) not in dropped]
    assert left == [messages[place] for place in kept]
    question = last_user_place(messages, fixed)
    assert question is None or set(range(question, len(messages))) <= set(kept)
    assert {place for place, each in enumerate(messages) if place in fixed or each.role == "system"} <= set(kept)
    assert answers_together(kept, messages) <= answers_together(range(len(messages)), messages)
    calls = {call.id: place for place, message in enumerate(messages) for call in message.tool_calls}
    for place, message in enumerate(messages):
        if message.tool_call_id in calls and not {place, calls[message.tool_call_id]} & fixed:
            assert (place in kept) == (calls[message.tool_call_id] in kept)


@settings(max_examples=200, deadline=None)
@given(rounds=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6), data=st.data())
def test_a_conversation_that_alternates_still_alternates(rounds: list[tuple[int, bool]], data: st.DataObject) -> None:
    """In some rounds, the last result comes only after the next message of the user, or after a first answer to it."""
    messages, late, delayed = [Message("system", "s")], list[Message](), set[int]()
    for n, (calls, delays) in enumerate(rounds, 1):
        messages.append(Message("user", f"q{n}"))
        if data.draw(st.booleans()) and late:
            messages.append(Message("assistant", f"a first answer {n}"))
        messages += late
        late = []
        for step in range(calls):
            made = ToolCall("f", "{}", f"c{n}.{step}")
            messages += [Message("assistant", "", (made,)), Message("tool", "r", tool_call_id=made.id)]
        if calls and delays:
            late, delayed = [messages.pop()], {*delayed, n}
            continue
        messages.append(Message("assistant", f"a{n}"))
    messages += [Message("user", "last"), *late]
    request = request_of(messages)
    may_go = set(range(1, len(rounds) + 1)) - delayed
    assert set(earlier_turns(request).values()) == may_go
    dropped = data.draw(st.sets(st.sampled_from(sorted(may_go)))) if may_go else set()

    roles = [each.role for each in left_of(request, dropped)]

    assert ("assistant", "assistant") not in pairwise(roles)
    if not delayed:
        spoken = [each.role for each in left_of(request, dropped) if not each.tool_calls and each.role != "tool"]
        assert spoken == ["system", *["user", "assistant"] * (len(rounds) - len(dropped)), "user"]


def test_a_turn_whose_result_comes_in_the_next_one_stays_and_that_one_may_go() -> None:
    messages = [
        Message("user", "q1"),
        Message("assistant", "", (ToolCall("f", "{}", "c"),)),
        Message("user", "q2"),
        Message("assistant", "a2"),
        Message("tool", "late", tool_call_id="c"),
        Message("assistant", "a2 again"),
        Message("user", "last"),
    ]
    request = request_of(messages)

    assert earlier_turns(request) == {2: 2, 3: 2, 5: 2}
    assert left_of(request, {2}) == [messages[place] for place in (0, 1, 4, 6)]


def test_messages_of_a_stored_prompt_and_retrieved_context_are_in_no_turn() -> None:
    source = Source("documents[0]", "d")
    context = RetrievedContext((ContextPassage(1, source, 0, 4, "text"),))
    messages = [
        Message("user", "an example"),
        Message("assistant", "its answer"),
        Message("user", "asked before"),
        Message("assistant", "answered"),
        Message("user", context.text),
        Message("user", "asked now"),
    ]

    assert earlier_turns(request_of(messages, 2, context)) == {2: 1, 3: 1}
