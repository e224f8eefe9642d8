"""Role markers that a text spells out itself: the control tokens of chat templates, and lines that open a turn. Pure.

They are looked for in the text without invisible characters and with compatible forms (full width) folded, so that
``<|im_\\u200bstart|>`` is found as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from safety.text.plain import plain_form


class MarkerKind(StrEnum):
    """The kind of a role marker: what it imitates, a control token or the opening line of a turn. The kind decides how
    certain the finding is."""

    TURN = "turn"  # a control token together with the role of the operator: a forged system turn
    TOKEN = "token"  # a control token
    OPERATOR_LINE = "operator_line"  # a line such as ``### System:``
    SPEAKER_LINE = "speaker_line"  # a line such as ``Assistant:``, which transcripts have too


@dataclass(frozen=True, slots=True)
class Marker:
    """The characters ``[start, end)`` of the text that are a role marker."""

    start: int
    end: int
    kind: MarkerKind


_TOKEN = (
    r"<[|｜][\w▁]{2,32}[|｜]>"  # ChatML, Llama 3, Phi, Harmony, DeepSeek
    r"|</?(?:start|end)_of_(?:turn|role|image)>|\[/?INST\]|<</?SYS>>|\[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS)\]"
    r"|<\|(?:im_start|im_end)\b|</?tool_(?:call|response)s?>|<(?:bos|eos)>|\[(?:BOS|EOS)\]"
)
_OPERATOR = r"(?:system|developer|operator)"
_MARKERS = re.compile(
    rf"(?P<turn>(?:{_TOKEN})\s{{0,8}}(?:{_OPERATOR}\b|<<SYS>>)|<[|｜]{_OPERATOR}[|｜]>|<<SYS>>|\[SYSTEM_PROMPT\])"
    rf"|(?P<token>{_TOKEN})"
    rf"|^[ \t]{{0,8}}(?P<operator_line>[#*\[<]{{0,6}}[ ]?{_OPERATOR}(?:[ _](?:prompt|message|instructions?|override))?"
    r"[\]>*]{0,4}[ ]?:)"
    r"|^[ \t]{0,8}(?P<speaker_line>[#*\[]{0,6}[ ]?(?:assistant|human|user|ai|model)[\]*]{0,4}[ ]?:)",
    re.IGNORECASE | re.MULTILINE,
)


SLICE = 1 << 14
"""Characters that are searched at a time: a search holds the interpreter's lock to its end."""
MAX_MARKER = 256  # characters, with what is before and after it


def role_markers(text: str) -> Iterator[Marker]:
    """Yields the role markers of a text, in order. They do not overlap."""
    plain = plain_form(text)
    position, length = 0, len(plain.text)
    while position < length:
        end = min(length, position + SLICE)
        match = _MARKERS.search(plain.text, position, end)
        if match is None or (match.start() > end - MAX_MARKER and end < length):
            position = end if end == length else end - MAX_MARKER
            continue
        position = match.end()
        name = match.lastgroup
        if name:
            yield Marker(*plain.original(*match.span(name)), MarkerKind(name))
