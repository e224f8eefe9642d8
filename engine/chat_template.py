"""Renders conversations with the model's chat template.

Templates differ in the messages that they expect. On loading, small conversations are rendered to find out whether the
content of a message must be a string or a list of parts, whether system messages are written, and whether the role
``developer`` is known. Tools are described by the template if it knows the Hermes format of tool calls, else in a
message (``tool_prompt``).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, Template, TemplateError

from engine.api import (
    MAX_JSON_DEPTH,
    TOOL_CALL_START,
    Conversation,
    Message,
    RequestError,
    ToolCall,
    is_plain_json,
)
from engine.jinja_environment import environment, messages_for_template
from engine.tool_prompt import Rewrite, as_text, introduced, without_arguments

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
"""Names that ``Conversation.template_kwargs`` may not set, because the request, the tokenizer, the engine or Jinja sets
them."""

_NEEDLE = "2f7c1e9b"  # content of test messages; no template contains it
_SPOKEN_ROLES = ("user", "assistant", "tool")  # a template that leaves their messages out does so on purpose
_SYSTEM_ROLES = ("system", "developer")
_Turn = dict[str, Any]


class ChatTemplate:
    """A model's chat template. Does not change after loading. A model without a template is accepted here; ``render``
    raises for it.

    ``template`` is the source of one, or of several by name as transformers has them: ``tool_use`` is for conversations
    with tools, ``default`` for all others. ``special_tokens`` has the texts of ``bos_token``, ``eos_token`` and so on,
    which templates may write.
    """

    def __init__(self, template: str | Mapping[str, str] | None, special_tokens: Mapping[str, str]) -> None:
        self._sources = template if isinstance(template, Mapping) else {"default": template} if template else {}
        self._special_tokens = dict(special_tokens)
        self._compiled: dict[str, Template] = {}
        source = str(template or "")
        # The mark alone is not enough: some templates write other things than a JSON name and arguments within it.
        self._knows_tools = (
            TOOL_CALL_START in source and re.search(r'"name\\?":.*"arguments\\?":', source, re.DOTALL) is not None
        )
        self._takes_parts = False
        if source and not self._writes_user():
            self._takes_parts = True
            self._takes_parts = self._writes_user()
        self._writes_system = self._writes("system", after=["user"])
        self._knows_developer = _mentions(source, "developer") and self._writes("developer", after=["user"])

    def __bool__(self) -> bool:
        """Whether there is a template."""
        return bool(self._sources)

    def render(self, conversation: Conversation, rewrite: Rewrite) -> str:
        """Returns the conversation as text, as the model's template writes it. Every string of the client passes
        through ``rewrite`` first. Raises RequestError if the model has no template, if the template refuses the
        conversation or leaves out a message, and for invalid tools or template variables."""
        if not self._sources:
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
        except RequestError:  # some templates refuse system messages
            return self._finish(conversation, introduced(turns, tools, "user"), variables)

    def _finish(self, conversation: Conversation, turns: list[_Turn], variables: Mapping[str, Any]) -> str:
        """Renders ``turns``. If the conversation continues its last message, cuts the text after that message's
        content."""
        turns = self._audible(turns, variables)
        if not conversation.continue_final_message:
            return self._apply(turns, variables)
        # As in transformers: the space after the mark is missing if the template strips the content.
        mark = f"\ue000{secrets.token_hex(8)}\ue001"
        last = {**turns[-1], "content": f"{turns[-1]['content']}{mark} "}
        before, found, after = self._apply([*turns[:-1], last], variables).rpartition(mark)
        if not found:
            raise RequestError(
                "The model's chat template does not write the last message as it is.", "continue_final_message"
            )
        return before if after.startswith(" ") else before.rstrip()

    def _known(self, message: Message) -> Message:
        """Changes the role ``developer`` (OpenAI's newer name) to ``system`` if the template does not know it."""
        if message.role != "developer" or self._knows_developer:
            return message
        return replace(message, role="system")

    def _audible(self, turns: list[_Turn], variables: Mapping[str, Any]) -> list[_Turn]:
        """Returns ``turns`` so that the template writes all of them. The content of a system message that it would
        leave out silently joins the system message before it or the next user message. Raises RequestError for a
        message of another role that it would leave out."""
        asked = {at: f"{_NEEDLE}.{at}." for at, turn in enumerate(turns) if self._doubtful(at, turn)}
        if not asked:
            return turns
        text = self._apply(
            [{**turn, "content": asked.get(at, turn["content"])} for at, turn in enumerate(turns)], variables
        )
        lost = {at for at, mark in asked.items() if mark not in text}
        return _merged(turns, lost) if lost else turns

    def _doubtful(self, at: int, turn: _Turn) -> bool:
        """Returns whether the template may leave out this turn, judging by its role."""
        usual = turn["role"] in _SPOKEN_ROLES or (at == 0 and turn["role"] == "system" and self._writes_system)
        return not usual and bool(turn["content"])

    def _writes_user(self) -> bool:
        """Returns whether the template writes user messages, alone or after a system message."""
        return self._writes("user") or self._writes("user", before=["system"])

    def _writes(self, role: str, before: Sequence[str] = (), after: Sequence[str] = ()) -> bool:
        """Returns whether the template writes the content of a message of ``role``, with messages of other roles before
        and after."""
        turns = [{"role": each, "content": _NEEDLE if each == role else "a"} for each in (*before, role, *after)]
        try:
            return _NEEDLE in self._apply(turns, {})
        except RequestError:
            return False

    def _apply(self, turns: list[_Turn], variables: Mapping[str, Any]) -> str:
        """Renders ``turns``. Raises RequestError if the template refuses them or fails."""
        if self._takes_parts:
            turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
        try:
            return self._chosen(variables).render(
                {
                    **self._special_tokens,
                    "tools": None,
                    "documents": None,
                    "add_generation_prompt": True,
                    **variables,
                    "messages": messages_for_template(turns),
                }
            )
        except TemplateError as error:  # templates refuse with raise_exception, for example two user turns in a row
            raise RequestError(f"The model's chat template refuses these messages: {error}", "messages") from error
        except Exception as error:  # templates are code of the model's author and run on input of a client
            kind = type(error).__name__
            raise RequestError(f"The model's chat template fails on these messages: {kind}", "messages") from error

    def _chosen(self, variables: Mapping[str, Any]) -> Template:
        """Returns the template for a conversation with these variables, compiled on its first use. Raises TemplateError
        for an invalid one, and KeyError if there are several and none is the default."""
        name = "tool_use" if variables.get("tools") is not None and "tool_use" in self._sources else "default"
        if name not in self._compiled:
            self._compiled[name] = environment().from_string(self._sources[name])
        return self._compiled[name]


def read_template(path: Path) -> str:
    """Returns the source of the template in the file ``path``. Raises OSError if it cannot be read, and ValueError if
    it is empty or no Jinja template."""
    source = path.read_text("utf-8")
    if not source.strip():
        raise ValueError(f"chat_template: {path} is empty")
    try:
        environment().from_string(source)
    except TemplateError as error:
        raise ValueError(f"chat_template: {path} is no Jinja template: {error}") from error
    return source


def rewritten(value: Any, rewrite: Rewrite) -> Any:
    """Returns a JSON value with ``rewrite`` applied to all its strings and names."""
    if isinstance(value, str):
        return rewrite(value)
    if isinstance(value, list):
        return [rewritten(each, rewrite) for each in value]
    if isinstance(value, dict):
        return {rewrite(name): rewritten(each, rewrite) for name, each in value.items()}
    return value


def _turn(message: Message, rewrite: Rewrite) -> _Turn:
    """Returns a message as the dictionary that templates expect, with all its strings rewritten."""
    turn: _Turn = {"role": rewrite(message.role), "content": rewrite(message.content)}
    for field in ("name", "reasoning_content", "tool_call_id"):
        if (said := getattr(message, field)) is not None:
            turn[field] = rewrite(said)
    if message.tool_calls:
        turn["tool_calls"] = [_call(call, rewrite) for call in message.tool_calls]
    return turn


def _call(call: ToolCall, rewrite: Rewrite) -> dict[str, Any]:
    """Returns a tool call as the dictionary that templates expect, with all its strings rewritten."""
    function = {"name": rewrite(call.name), "arguments": rewritten(_arguments(call), rewrite)}
    named = {} if call.id is None else {"id": rewrite(call.id)}
    return {**named, "type": "function", "function": function}


def _arguments(call: ToolCall) -> Any:
    """Returns the arguments of a call as an object, which templates write as JSON. Text that is no JSON object, or is
    nested too deeply, is returned as text."""
    if without_arguments(call.arguments):
        return {}
    try:
        loaded = json.loads(call.arguments)
    except (ValueError, RecursionError):
        return call.arguments
    return loaded if isinstance(loaded, dict) and is_plain_json(loaded) else call.arguments


def _loaded(tool: str) -> Any:
    """Parses the JSON description of a tool. Raises RequestError if it is invalid or nested too deeply."""
    try:
        loaded = json.loads(tool)
    except (ValueError, RecursionError) as error:
        raise RequestError("A tool is described by JSON.", "tools") from error
    if not is_plain_json(loaded):
        raise RequestError(f"Tools are nested at most {MAX_JSON_DEPTH} deep, and their text is Unicode.", "tools")
    return loaded


def _variables(template_kwargs: Sequence[tuple[str, str]], rewrite: Rewrite) -> dict[str, Any]:
    """Returns the template variables that the client set. Raises RequestError for a reserved or invalid name, and for a
    value that is no valid JSON."""
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
    """Returns whether transformers accepts the value of ``documents``, the only variable that it checks."""
    return value is None or (isinstance(value, list) and all(isinstance(each, dict) for each in value))


def _mentions(source: str, word: str) -> bool:
    """Returns whether the template's code has ``word`` as a string, for example to compare a role with it. The text
    that the template writes does not count."""
    try:
        tokens = list(Environment().lex(source))
    except TemplateError:
        return False
    return any(kind == "string" and value[1:-1] == word for _, kind, value in tokens)


def _merged(turns: Sequence[_Turn], lost: Collection[int]) -> list[_Turn]:
    """Returns ``turns`` with the content of the system messages at the places ``lost`` moved to the system message
    before or the next user message. Raises RequestError if there is none, and for a message of another role."""
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
    """Returns the error for messages of a role that the template leaves out."""
    return RequestError(f"The model's chat template leaves out messages of the role {role!r}.", "messages")
