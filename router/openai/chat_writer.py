"""The responses of /v1/chat/completions, whole and as stream chunks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quote
from typing import Any

from engine.api import FinishReason, TokenLogprobs, Usage
from router.answer_events import (
    AnswerEvent,
    Cited,
    Ended,
    Finished,
    Moderated,
    Opened,
    Reasoning,
    Stamp,
    Text,
    ToolCallArguments,
    ToolCallStart,
)
from router.complete_answer import Answer, EndReason
from router.openai.citation_annotations import annotation
from router.openai.common_response import ChunkTemplate, fault_of, moderation_of, response_fields, usage_fields
from router.openai.json_parts import with_members
from router.openai.logprobs import chat_logprobs, chat_logprobs_json, prompt_logprobs_json


class ChatWriter:
    """The writer of one response of /v1/chat/completions. Implements ``AnswerWriter``.

    ``include_usage``: a stream ends with a chunk of token counts. ``include_reasoning``: the response has the model's
    reasoning, as ``reasoning_content``. ``service_tier``: the value of that member; None: the member is left out.
    """

    def __init__(
        self,
        stamp: Stamp,
        *,
        include_usage: bool = False,
        include_reasoning: bool = True,
        service_tier: str | None = None,
    ) -> None:
        self._id = f"chatcmpl-{stamp.id}"
        self._stamp = stamp
        self._include_reasoning = include_reasoning
        self._tier = {} if service_tier is None else {"service_tier": service_tier}
        self._chunk = ChunkTemplate("chat.completion.chunk", self._id, stamp, include_usage, self._tier)
        self._annotations: dict[int, str] = {}  # choice → the delta of its last chunk
        self._text_head = self._head_of(0)  # serialised once: nearly all chunks are text of choice 0
        self._text_tail = '},"logprobs":null,"finish_reason":null}' + self._chunk.tail

    def chunks(self, events: Sequence[AnswerEvent]) -> list[str]:
        """Returns a chunk for each event of a choice, and the last chunks of the stream, in the order of ``events``.
        Citations have no chunk of their own: they are in the last chunk of their choice. Hidden reasoning has none,
        unless it carries log probabilities."""
        chunks: list[str] = []
        for event in events:
            match event:
                case Text():
                    chunks.append(self._content(event))
                case ToolCallStart() | ToolCallArguments():
                    chunks.append(self._call(event))
                case Reasoning():
                    chunks += self._reasoning(event)
                case Opened(choice):
                    delta = '{"role":"assistant","content":"","refusal":null}'
                    chunks.append(self._of_choice(choice, delta, "null", "null"))
                case Cited(choice, citations):
                    annotations = {"annotations": list(map(annotation, citations))}
                    self._annotations[choice] = json.dumps(annotations, separators=(",", ":"))
                case Ended(choice, reason, called):
                    delta = self._annotations.get(choice, "{}")
                    chunks.append(self._of_choice(choice, delta, "null", f'"{_reason(reason, called)}"'))
                case Moderated():
                    chunks.append(self._chunk.moderation(event))
                case Finished(usage):
                    chunks += self._chunk.last(usage)
        return chunks

    def whole(self, answers: Sequence[Answer], usage: Usage) -> str:
        """Returns the JSON body of a response that is not streamed. Its choices are in the order of ``answers``."""
        choices = ", ".join(_choice(answer, self._include_reasoning) for answer in answers)
        document = response_fields("chat.completion", self._id, self._stamp) | self._tier | moderation_of(answers)
        members = {"choices": f"[{choices}]", "usage": json.dumps(usage_fields(usage, self._stamp))}
        return with_members(document, members | _prompt_logprobs(answers))

    def _head_of(self, index: int) -> str:
        """Returns the beginning of a chunk with text, up to the text."""
        return f'{self._chunk.head}{{"index":{index},"delta":{{"content":'

    def _content(self, event: Text) -> str:
        head = self._text_head if event.choice == 0 else self._head_of(event.choice)
        if event.logprobs is None:
            return f"{head}{quote(event.text)}{self._text_tail}"
        return (
            f'{head}{quote(event.text)}}},"logprobs":{_scores(event.logprobs)},"finish_reason":null}}{self._chunk.tail}'
        )

    def _reasoning(self, event: Reasoning) -> list[str]:
        if self._include_reasoning:
            delta = f'{{"reasoning_content":{quote(event.text)}}}'
            return [self._of_choice(event.choice, delta, _scores(event.logprobs), "null")]
        # Hidden reasoning still has its log probabilities sent: the event may hold those of the first text tokens too.
        return [] if event.logprobs is None else [self._content(Text(event.choice, "", event.logprobs))]

    def _call(self, event: ToolCallStart | ToolCallArguments) -> str:
        if isinstance(event, ToolCallStart):
            function = {"name": event.name, "arguments": ""}
            call: dict[str, Any] = {"index": event.call, "id": event.id, "type": "function", "function": function}
        else:
            call = {"index": event.call, "function": {"arguments": event.text}}
        delta = json.dumps({"tool_calls": [call]}, separators=(",", ":"))
        return self._of_choice(event.choice, delta, _scores(event.logprobs), "null")

    def _of_choice(self, index: int, delta: str, logprobs: str, reason: str) -> str:
        """Returns a chunk whose one choice has these members, each given as JSON."""
        choice = f'"index":{index},"delta":{delta},"logprobs":{logprobs},"finish_reason":{reason}'
        return f"{self._chunk.head}{{{choice}}}{self._chunk.tail}"


def _scores(logprobs: tuple[TokenLogprobs, ...] | None) -> str:
    return "null" if logprobs is None else json.dumps(chat_logprobs(logprobs), separators=(",", ":"))


def _choice(answer: Answer, include_reasoning: bool) -> str:
    """Returns an item of ``choices`` as JSON."""
    annotations = list(map(annotation, answer.citations))
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": annotations}
    if include_reasoning and answer.reasoning is not None:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["content"] = answer.text or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.tool_calls
        ]
    choice = {
        "index": answer.index,
        "message": message,
        "finish_reason": _reason(answer.finish_reason, answer.called),
        **fault_of(answer),
    }
    logprobs = "null" if answer.logprobs is None else chat_logprobs_json(answer.logprobs)
    return with_members(choice, {"logprobs": logprobs})


def _reason(reason: EndReason, called: bool) -> str:
    """Returns OpenAI's ``finish_reason``. An answer that stops after a complete tool call has ``tool_calls``."""
    return "tool_calls" if called and reason is FinishReason.STOP else reason.value


def _prompt_logprobs(answers: Sequence[Answer]) -> dict[str, str]:
    """Returns vLLM's member ``prompt_logprobs`` as JSON, or nothing if the request did not ask for it."""
    scored = answers[0].prompt_logprobs if answers else None
    return {} if scored is None else {"prompt_logprobs": prompt_logprobs_json(scored)}
