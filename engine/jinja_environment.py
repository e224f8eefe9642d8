"""The Jinja environment of chat templates. It has the functions and filters that transformers offers to templates (in
its ``apply_chat_template``), so that a template writes the same text here. transformers itself takes 1 s and 20 MB to
import, and is not needed."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""Names of the same part of a message, of which templates read one; the first that is set counts."""


@cache
def environment() -> ImmutableSandboxedEnvironment:
    """Returns the environment, made on the first call. Templates in it cannot change what they get, nor reach Python's
    internals: they are code of the model's author."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationExtension, loopcontrols]
    )
    made.filters["tojson"] = _to_json
    made.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _DictFunction(),
        "namespace": _PlainNamespace,
    }
    return made


def messages_for_template(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns ``turns`` without fields that are None, and with the reasoning under the names that templates read."""
    return [_with_reasoning({name: value for name, value in turn.items() if value is not None}) for turn in turns]


def _with_reasoning(turn: dict[str, Any]) -> dict[str, Any]:
    said = next((turn[name] for name in REASONING_FIELDS if name in turn), None)
    return turn if said is None else {"thinking": said, **turn, "reasoning_content": said}


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


class _DictFunction:
    """``dict`` for templates, without the attributes of the class."""

    def __call__(self, *arguments: Any, **items: Any) -> dict[Any, Any]:
        return dict(*arguments, **items)

    def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


class _PlainNamespace(Namespace):
    """``namespace`` for templates. A name that starts with an underscore is refused, since it may lead to Python's
    internals."""

    def __init__(
        *arguments: Any, **items: Any
    ) -> None:  # without self, so that a template may set an item of that name
        self, *rest = arguments
        attributes = dict(*rest, **items)
        for name in attributes:
            _check_public(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_public(name)
        super().__setitem__(name, value)


def _check_public(name: object) -> None:
    """Raises SecurityError for a name that starts with an underscore."""
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a chat template cannot set {name!r} of a namespace")


class _GenerationExtension(Extension):
    """The block ``{% generation %}``, which marks answers for training. Here it is its contents."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as an attribute of each instance

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
