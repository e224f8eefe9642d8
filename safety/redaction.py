"""Replaces spans of a text."""

from __future__ import annotations

from collections.abc import Iterable

from safety.api import Span


def replacement_of(span: Span) -> str:
    """Returns the text that replaces a span: its ``replacement``, or its kind in angle brackets."""
    return f"<{span.kind}>" if span.replacement is None else span.replacement


def redact(text: str, spans: Iterable[Span]) -> str:
    """Returns ``text`` with each span replaced as by ``replacement_of``. ``spans`` are sorted and do not overlap."""
    parts: list[str] = []
    end = 0
    for span in spans:
        parts += text[end : span.start], replacement_of(span)
        end = span.end
    return "".join([*parts, text[end:]])
