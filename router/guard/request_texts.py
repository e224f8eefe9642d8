"""Extracts the texts of a request that the guard inspects, and puts changed texts in their places. Pure.

One walk through the request serves both, so that the texts have one order. It visits everything that a chat template
can show to the model: contents, reasoning, arguments and results of tools, names and ids, descriptions of tools, and
the template's variables. Prompts of token ids are visited too, as passages without readable text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from engine.api import Conversation, Message, Prompt, ToolCall
from router.documents import RetrievedContext
from router.guard.json_strings import (
    Number,
    document_of,
    dumped,
    strings_of,
    with_first_string,
    with_letters,
    with_strings,
)
from router.inference_request import InferenceRequest
from safety.api import Origin, Passage

ORIGIN_BY_ROLE = {
    "system": Origin.SYSTEM,
    "developer": Origin.SYSTEM,
    "user": Origin.USER,
    "assistant": Origin.HISTORY,
    "tool": Origin.TOOL_RESULT,
}

IDENTIFIER = re.compile(
    r"(?:(?:call|toolu|fc|chatcmpl-tool)[_-](?!\S*\d{9})[A-Za-z0-9]{1,48}"
    r"|(?!(?:\S*?\d){5})(?![A-Z0-9]{16})[A-Za-z_$][\w$.:/-]{0,47})?",
    re.ASCII,
)
"""Names and ids that are no sentences, in places where such are expected. They are not inspected. What has more than
four digits is, as are runs of capitals, which may be a card, an account or a key; but not the ids that services give to
calls."""
MIN_NUMBER = 7
"""The characters of a number that is inspected: fewer are no personal datum."""

Change = Callable[[Passage], str]
"""Takes a passage of the request and returns the text that takes its place."""
NO_TURNS: Mapping[int, int] = {}
"""The turns of messages of which none may be left out."""


def passages_of(request: InferenceRequest, turns: Mapping[int, int] = NO_TURNS) -> list[Passage]:
    """Returns the passages of a request: each text that the model may see. Their order is that in which
    ``changed_request`` visits them. The values of a stored prompt's variables come first, with the origin USER, since
    the template may put them into a system message.

    ``turns`` has the numbers of earlier turns by the indices of their messages, as the passages are to have them."""
    found: list[Passage] = []

    def note(passage: Passage) -> str:
        found.append(passage)
        return passage.text

    changed_request(request, note, turns)
    return found


def with_texts(request: InferenceRequest, texts: Sequence[str]) -> InferenceRequest:
    """Returns ``request`` with ``texts`` in the places of its passages, in their order."""
    rest = iter(texts)
    return changed_request(request, lambda passage: next(rest))


def continued_texts(request: InferenceRequest) -> list[str]:
    """Returns the text that the answers to each prompt continue: the prompt, or the last message of a conversation if
    the answer is to continue that message; "" if there is no such text."""
    return [_continued(prompt) for prompt in request.prompts]


def _continued(prompt: Prompt) -> str:
    if isinstance(prompt, Conversation):
        return prompt.messages[-1].content if prompt.continue_final_message else ""
    return prompt if isinstance(prompt, str) else ""


def is_json(request: InferenceRequest) -> bool:
    """Returns whether the texts of the answers to a request are JSON from their first character to their last: the
    request asks for it, and they do not continue another text."""
    if not request.writes_json:
        return False
    return not any(isinstance(prompt, Conversation) and prompt.continue_final_message for prompt in request.prompts)


def changed_request(request: InferenceRequest, change: Change, turns: Mapping[int, int] = NO_TURNS) -> InferenceRequest:
    """Returns ``request`` with each passage replaced by the result of ``change``. ``turns`` is as in
    ``passages_of``."""
    field, several = request.prompt_field, len(request.prompts) > 1
    fields = [f"{field}[{place}]" if several else field for place in range(len(request.prompts))]
    values = [(name, value, change(Passage(value, Origin.USER, name))) for name, value in request.template_values]
    contexts = Contexts(request.context, None if request.context is None else _context(request.context, change))
    named = zip(request.prompts, fields, strict=True)
    prompts = [_prompt(prompt, name, change, contexts, turns) for prompt, name in named]
    changed = [(value, new) for _, value, new in values if new != value]
    if changed:
        prompts = [_with_values(prompt, request.template_messages, changed) for prompt in prompts]
    template_values = tuple((name, new) for name, _, new in values)
    return replace(request, prompts=prompts, template_values=template_values, context=contexts.after)


def _with_values(prompt: Prompt, count: int, changed: Sequence[tuple[str, str]]) -> Prompt:
    """Returns ``prompt`` with values of variables replaced in the first ``count`` messages, the longest value first."""
    if not isinstance(prompt, Conversation):
        return prompt
    messages = list(prompt.messages)
    for place, message in enumerate(messages[:count]):
        content = message.content
        for value, new in sorted(changed, key=lambda each: -len(each[0])):
            content = content.replace(value, new)
        messages[place] = replace(message, content=content)
    return replace(prompt, messages=tuple(messages))


class Contexts(NamedTuple):
    """The request's retrieved context before and after the change. Each retrieved passage is inspected by itself,
    once."""

    before: RetrievedContext | None
    after: RetrievedContext | None


def _context(context: RetrievedContext, change: Change) -> RetrievedContext:
    """Returns the context with each passage changed. The titles and headings above it come from the document too."""
    shown = []
    for passage in context.passages:
        field, label = passage.source.field, passage.label
        label = change(Passage(label, Origin.DOCUMENT, f"{field}.title")) if label else label
        shown.append((label, change(Passage(passage.visible, Origin.DOCUMENT, field))))
    return context.with_shown(shown)


def _prompt(prompt: Prompt, field: str, change: Change, contexts: Contexts, turns: Mapping[int, int]) -> Prompt:
    if isinstance(prompt, str):
        return change(Passage(prompt, Origin.USER, field))
    if isinstance(prompt, tuple):
        change(Passage("", Origin.USER, field, readable=False))
        return prompt
    return _conversation(prompt, change, contexts, turns)


def _conversation(
    conversation: Conversation, change: Change, contexts: Contexts, turns: Mapping[int, int] = NO_TURNS
) -> Conversation:
    before, after = contexts
    skipped = None if before is None or not before.passages else before.text
    messages, place = [], 0  # the client counts the messages without the context
    for index, message in enumerate(conversation.messages):
        if skipped is not None and message.content == skipped:
            messages.append(replace(message, content="" if after is None else after.text))
            skipped = None
            continue
        changing = change if (turn := turns.get(index)) is None else _of_turn(turn, change)
        messages.append(_message(message, f"messages[{place}]", changing))
        place += 1
    tools = tuple(
        changed_json(tool, f"tools[{place}]", Origin.TOOL, change, names=True)
        for place, tool in enumerate(conversation.tools)
    )
    variables = tuple(
        (name, _variable(value, f"chat_template_kwargs.{name}", change)) for name, value in conversation.template_kwargs
    )
    return replace(conversation, messages=tuple(messages), tools=tools, template_kwargs=variables)


def _of_turn(turn: int, change: Change) -> Change:
    """Returns a function that does ``change`` with the passage as one of an earlier turn."""

    def changing(passage: Passage) -> str:  # dataclasses.replace takes four times as long
        return change(Passage(passage.text, passage.origin, passage.field, passage.readable, turn))

    return changing


def _message(message: Message, field: str, change: Change) -> Message:
    origin = ORIGIN_BY_ROLE.get(message.role, Origin.USER)

    def text(value: str, name: str) -> str:
        return change(Passage(value, origin, f"{field}.{name}")) if value else value

    def optional(value: str | None, name: str) -> str | None:
        return value if value is None else text(value, name)

    def identifier(value: str | None, name: str) -> str | None:
        return value if value is None or IDENTIFIER.fullmatch(value) else text(value, name)

    def call(made: ToolCall, name: str) -> ToolCall:
        arguments = changed_json(made.arguments, f"{field}.{name}.function.arguments", origin, change)
        return ToolCall(made.name, arguments, identifier(made.id, f"{name}.id"))

    return Message(
        message.role,
        text(message.content, "content"),
        tuple(call(made, f"tool_calls[{place}]") for place, made in enumerate(message.tool_calls)),
        name=identifier(message.name, "name"),
        reasoning_content=optional(message.reasoning_content, "reasoning_content"),
        tool_call_id=identifier(message.tool_call_id, "tool_call_id"),
    )


def _variable(value: str, field: str, change: Change) -> str:
    """Returns the JSON ``value`` of a template's variable changed. A number that changes becomes a string."""
    changed = changed_json(value, field, Origin.DOCUMENT, change)
    return changed if changed == value or document_of(value) is not None else json.dumps(changed, ensure_ascii=False)


def changed_json(document: str, field: str, origin: Origin, change: Change, *, names: bool = False) -> str:
    """Returns the JSON ``document`` with its strings replaced by the result of ``change``. All strings together are one
    passage, with a line or more for each: a schema has many short strings, which say little alone, and an escape such
    as ``\\u0041`` would hide a letter.

    ``names``: the document is a JSON schema, most of whose strings are keywords and names; these are left out. A
    document that is no JSON, or too deep to be taken apart, is changed as plain text, with the letters of its escapes:
    a model reads both.
    """
    value = document_of(document)
    if value is None:
        plain = with_letters(document)
        changed = change(Passage(plain, origin, field)) if document else plain
        return document if changed == plain else changed
    skipped = _is_name if names else _is_short
    strings = [string for string in strings_of(value) if not skipped(string)]
    if not strings:
        return document
    text = _readable("\n".join(strings))
    changed = change(Passage(text, origin, field))
    if changed == text:
        return document
    shared = _shared_out(changed, strings)
    if shared is None:
        return dumped(with_first_string(value, changed))
    rest = iter(shared)
    return dumped(with_strings(value, lambda string: string if skipped(string) else next(rest)))


def _readable(text: str) -> str:
    """Returns ``text`` with each half of a surrogate pair, which JSON can escape, replaced by U+FFFD: no check could
    read a text that cannot be encoded."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _is_short(string: str) -> bool:
    return len(string) < MIN_NUMBER if isinstance(string, Number) else not string


def _is_name(string: str) -> bool:
    return _is_short(string) or (not isinstance(string, Number) and IDENTIFIER.fullmatch(string) is not None)


def _shared_out(changed: str, strings: Sequence[str]) -> list[str] | None:
    """Returns the lines of ``changed`` as the strings that they replace; None if there are more or fewer lines than
    before, as where the whole text was dropped."""
    lines = changed.split("\n")
    counts = [string.count("\n") + 1 for string in strings]
    if len(lines) != sum(counts):
        return None
    shared, start = [], 0
    for count in counts:
        shared.append("\n".join(lines[start : start + count]))
        start += count
    return shared
