"""Turns llguidance's error messages about a grammar into one plain sentence for the client."""

from __future__ import annotations

import re

from engine.decode.trial import Fault

MAX_COMPLAINT_CHARS = 300

TOO_LARGE = "it is too large once it is expanded."
TOO_DEEP = "it is nested too deeply."
DIED = "its rules or references form a chain that is too deep, or it needs too much memory."
SLOW = "it takes too long to compile."
SLOW_STEP = "its first steps take too long: too much may follow at one place."
SLOW_ANSWER = "the steps of an answer take too long: too much may follow at one place."
TOO_WIDE = "too much may follow at one place."
ENDLESS = "what it forces an answer to say has no end."
EMPTY = "no answer can follow it."
ONE_OF = "oneOf is supported only where its options are seen to exclude each other; anyOf always is."
TOO_COMPLEX = "one of its patterns is too complex."

# Parts of llguidance's messages, and the sentence for each. The first part that occurs decides.
SENTENCES = (
    ("panic", TOO_LARGE),
    ("backtrace", TOO_LARGE),
    ("grammar size", TOO_LARGE),
    ("schema too large", TOO_LARGE),
    ("too deeply nested", TOO_DEEP),
    ("recursion limit", TOO_DEEP),
    ("stack level exceeded", TOO_DEEP),
    ("nest limit", TOO_DEEP),
    ("maximum number of nested", TOO_DEEP),
    ("; ff_tokens)", ENDLESS),
    ("NoExtension", EMPTY),
    ("oneOf constraints", ONE_OF),
    ("Current row has", TOO_WIDE),
    ("Too many items", TOO_WIDE),
    ("too many states", TOO_COMPLEX),
    ("fuel", TOO_COMPLEX),
    ("too many expressions", TOO_COMPLEX),
    ("regex too large", TOO_COMPLEX),
    ("regex exceeds size limit", TOO_COMPLEX),
    ("Compiled regex exceeds", TOO_COMPLEX),
)
_PLACE = re.compile(r"(?:at )?\d+\(\d+\): ")  # line and column
_QUOTE = re.compile(r" \(at \".*")
_PATTERN = re.compile(r'invalid regex ".*?" \(in regex\): ', re.DOTALL)


FAULTS: dict[Fault, str] = {"died": DIED, "slow": SLOW, "slow step": SLOW_STEP, "slow answer": SLOW_ANSWER}
"""The sentence for each fault that a trial may find."""


def sentence(complaint: str, quoting: bool = True) -> str:
    """Returns a sentence for ``complaint``, an error message of llguidance, which may quote the source over several
    lines, or be a panic with its backtrace.

    Without ``quoting``, the sentence contains no part of the grammar's source and no position in it, because the client
    did not write that source.
    """
    for part, words in SENTENCES:
        if part in complaint:
            return words
    text = _PLACE.sub("", _PATTERN.sub("", complaint), count=1)
    why = re.search(r"^error: (.*)$", text, re.MULTILINE)  # the error of a pattern, after the lines that quote it
    line = f"regex parse error: {why[1]}" if why else text.partition("\n")[0]
    if not quoting:
        line = _QUOTE.sub("", line)
    line = line.strip().removesuffix(".")[:MAX_COMPLAINT_CHARS]
    return f"{line or 'llguidance does not say why'}."
