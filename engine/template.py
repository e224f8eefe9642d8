"""Conversations as the model's own chat template writes them.

Templates differ in what they expect. What one expects is found out when it is loaded, by rendering small conversations:
whether the content of a message is a string or a list of parts, whether it writes system messages, and whether it knows
the role ``developer``. Tools are described by the template itself if it knows Hermes' way of calling them (see
``tool_text``), else in words.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jinja2 import Environment, TemplateError

from engine.api import (
    MAX_JSON_DEPTH,
    TOOL_CALL_START,
    Conversation,
    Message,
    RequestError,
    ToolCall,
    is_plain_json,
)
from engine.tool_text import Rewrite, as_text, introduced, without_arguments

RESERVED_VARIABLES = frozenset(
    [
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "conversations",
        "max_length",
        "messages",
        "padding",
        "raise_exception",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "sanitize_control_tokens",
        "self",
        "strftime_now",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
        "additional_special_tokens",
        "bos_token",
        "cls_token",
        "eos_token",
        "mask_token",
        "pad_token",
        "sep_token",
        "unk_token",
        "cycler",
        "dict",
        "joiner",
        "lipsum",
        "namespace",
        "range",
    ]
)
"""Names that ``Conversation.template_kwargs`` may not set: the request, the tokenizer, the engine or Jinja sets
them."""

_NEEDLE = "2f7c1e9b"  # text that no template writes of its own accord
_SPOKEN_ROLES = ("user", "assistant", "tool")  # a template that leaves out what these say does so on purpose
_SYSTEM_ROLES = ("system", "developer")
_Turn = dict[str, Any]


class ChatTemplate:
    """The chat template of ``hub``, a tokenizer of transformers. Nothing is changed after loading."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        source = str(hub.chat_template or "")
        # Other templates have the same mark around something else than a name and arguments in JSON.
        self._knows_tools = (
            TOOL_CALL_START in source and re.search(r'"name\\?":.*"arguments\\?":', source, re.DOTALL) is not None
        )
        self._takes_parts = False
        if source and not self._writes_user():
            self._takes_parts = True
            self._takes_parts = self._writes_user()
        self._writes_system = self._writes("system", after=["user"])
        self._knows_developer = _mentions(source, "developer") and self._writes("developer", after=["user"])

    def render(self, conversation: Conversation, rewrite: Rewrite) -> str:
        """The conversation as text, with the assistant's turn opened unless it says otherwise. ``rewrite`` is applied
        to all that the client has said before the template is. Raises RequestError where there is no template, or it
        refuses."""
        if not self._hub.chat_template:
            raise RequestError("The model has no chat template; send a text prompt instead", "messages")
        tools = [rewritten(_loaded(tool), rewrite) for tool in conversation.tools]
        variables = _variables(conversation.template_kwargs, rewrite)
        variables["add_generation_prompt"] = conversation.add_generation_prompt
        messages = [self._known(message) for message in conversation.messages]
        if self._knows_tools:
            turns = [_turn(message, rewrite) for message in messages]
            return self._finish(conversation, turns, {**variables, "tools": tools or None})
        turns = [_turn(message, str) for message in as_text(messages, rewrite)]
        if not tools:
            return self._finish(conversation, turns, variables)
        try:
            return self._finish(conversation, introduced(turns, tools, "system"), variables)
        except RequestError:  # there are templates without system messages
            return self._finish(conversation, introduced(turns, tools, "user"), variables)

    def _finish(self, conversation: Conversation, turns: list[_Turn], variables: Mapping[str, Any]) -> str:
        """``turns`` as text, up to the end of the last one's content where that is to be continued."""
        turns = self._audible(turns, variables)
        if not conversation.continue_final_message:
            return self._apply(turns, variables)
        # As transformers does it: the space at the mark's end says whether the template has trimmed the content.
        mark = f"\ue000{secrets.token_hex(8)}\ue001"
        last = {**turns[-1], "content": f"{turns[-1]['content']}{mark} "}
        before, found, after = self._apply([*turns[:-1], last], variables).rpartition(mark)
        if not found:
            raise RequestError(
                "The model's chat template does not write the last message as it is.", "continue_final_message"
            )
        return before if after.startswith(" ") else before.rstrip()

    def _known(self, message: Message) -> Message:
        """A developer's message is the system's where the template does not know that role (OpenAI's newer name)."""
        if message.role != "developer" or self._knows_developer:
            return message
        return replace(message, role="system")

    def _audible(self, turns: list[_Turn], variables: Mapping[str, Any]) -> list[_Turn]:
        """``turns`` without any that the template would leave out in silence: what a system message says joins the one
        before it or the user's next. Raises RequestError for other roles."""
        asked = {at: f"{_NEEDLE}.{at}." for at, turn in enumerate(turns) if self._doubtful(at, turn)}
        if not asked:
            return turns
        text = self._apply(
            [{**turn, "content": asked.get(at, turn["content"])} for at, turn in enumerate(turns)], variables
        )
        lost = {at for at, mark in asked.items() if mark not in text}
        return _merged(turns, lost) if lost else turns

    def _doubtful(self, at: int, turn: _Turn) -> bool:
        """Whether a template that knows its usual roles may leave this turn out."""
        usual = turn["role"] in _SPOKEN_ROLES or (at == 0 and turn["role"] == "system" and self._writes_system)
        return not usual and bool(turn["content"])

    def _writes_user(self) -> bool:
        return self._writes("user") or self._writes("user", before=["system"])

    def _writes(self, role: str, before: Sequence[str] = (), after: Sequence[str] = ()) -> bool:
        """Whether what ``role`` says is in the text of a small conversation, with other roles before and after."""
        turns = [{"role": each, "content": _NEEDLE if each == role else "a"} for each in (*before, role, *after)]
        try:
            return _NEEDLE in self._apply(turns, {})
        except RequestError:
            return False

    def _apply(self, turns: list[_Turn], variables: Mapping[str, Any]) -> str:
        if self._takes_parts:
            turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
        try:
            return str(
                self._hub.apply_chat_template(turns, tokenize=False, **{"add_generation_prompt": True, **variables})
            )
        except TemplateError as error:  # templates refuse with raise_exception, for example two user turns in a row
            raise RequestError(f"The model's chat template refuses these messages: {error}", "messages") from error
        except Exception as error:  # the template is the model's own code, and runs on what a client has sent
            kind = type(error).__name__
            raise RequestError(f"The model's chat template fails on these messages: {kind}", "messages") from error


def rewritten(value: Any, rewrite: Rewrite) -> Any:
    """JSON with all its strings rewritten."""
    if isinstance(value, str):
        return rewrite(value)
    if isinstance(value, list):
        return [rewritten(each, rewrite) for each in value]
    if isinstance(value, dict):
        return {rewrite(name): rewritten(each, rewrite) for name, each in value.items()}
    return value


def _turn(message: Message, rewrite: Rewrite) -> _Turn:
    turn: _Turn = {"role": rewrite(message.role), "content": rewrite(message.content)}
    for field in ("name", "reasoning_content", "tool_call_id"):
        if (said := getattr(message, field)) is not None:
            turn[field] = rewrite(said)
    if message.tool_calls:
        turn["tool_calls"] = [_call(call, rewrite) for call in message.tool_calls]
    return turn


def _call(call: ToolCall, rewrite: Rewrite) -> dict[str, Any]:
    function = {"name": rewrite(call.name), "arguments": rewritten(_arguments(call), rewrite)}
    named = {} if call.id is None else {"id": rewrite(call.id)}
    return {**named, "type": "function", "function": function}


def _arguments(call: ToolCall) -> Any:
    """As an object, which templates write as JSON; what is none, or none that can be written, stays text."""
    if without_arguments(call.arguments):
        return {}
    try:
        loaded = json.loads(call.arguments)
    except (ValueError, RecursionError):
        return call.arguments
    return loaded if isinstance(loaded, dict) and is_plain_json(loaded) else call.arguments


def _loaded(tool: str) -> Any:
    """The description of a tool. Raises RequestError for what is none."""
    try:
        loaded = json.loads(tool)
    except (ValueError, RecursionError) as error:
        raise RequestError("A tool is described by JSON.", "tools") from error
    if not is_plain_json(loaded):
        raise RequestError(f"Tools are nested at most {MAX_JSON_DEPTH} deep, and their text is Unicode.", "tools")
    return loaded


def _variables(template_kwargs: Sequence[tuple[str, str]], rewrite: Rewrite) -> dict[str, Any]:
    """The template's variables that a client has set. Raises RequestError for a name that is not its own to set, and
    for a value that is no JSON."""
    variables: dict[str, Any] = {}
    for name, value in template_kwargs:
        if name in RESERVED_VARIABLES or not name.isidentifier():
            raise RequestError(f"chat_template_kwargs cannot set {name!r}.", "chat_template_kwargs")
        try:
            loaded = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"The value of {name!r} is no JSON.", "chat_template_kwargs") from error
        if not is_plain_json(loaded):
            limit = f"Values are nested at most {MAX_JSON_DEPTH} deep, and their text is Unicode."
            raise RequestError(limit, "chat_template_kwargs")
        if name == "documents" and not _are_documents(loaded):
            raise RequestError("The value of 'documents' is a list of objects.", "chat_template_kwargs")
        variables[name] = rewritten(loaded, rewrite)
    return variables


def _are_documents(value: Any) -> bool:
    """Whether transformers takes it: it checks this variable alone."""
    return value is None or (isinstance(value, list) and all(isinstance(each, dict) for each in value))


def _mentions(source: str, word: str) -> bool:
    """Whether a template compares something with ``word``; words of the text that it writes do not count."""
    try:
        tokens = list(Environment().lex(source))
    except TemplateError:
        return False
    return any(kind == "string" and value[1:-1] == word for _, kind, value in tokens)


def _merged(turns: Sequence[_Turn], lost: Collection[int]) -> list[_Turn]:
    """``turns`` with what the system says in those at ``lost`` moved to others. Raises RequestError where there are
    none, and for other roles."""
    kept: list[_Turn] = []
    loose: list[str] = []
    for at, turn in enumerate(turns):
        role, content = turn["role"], turn["content"]
        if at in lost:
            if role not in _SYSTEM_ROLES:
                raise _unheard(role)
            if kept and kept[-1]["role"] in _SYSTEM_ROLES:
                kept[-1] = {**kept[-1], "content": f"{kept[-1]['content']}\n\n{content}"}
            else:
                loose.append(content)
        elif loose and role == "user":
            kept.append({**turn, "content": "\n\n".join([*loose, content])})
            loose = []
        else:
            kept.append(turn)
    if loose:
        raise _unheard("system")
    return kept


def _unheard(role: str) -> RequestError:
    return RequestError(f"The model's chat template leaves out messages of the role {role!r}.", "messages")
