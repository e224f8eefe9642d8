"""``redacted_record``: what the log of texts has of a request. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from router.ports.text_log import LoggedText, RequestTexts
from safety.redacted_head import redacted_head

MAX_NAME = 256  # characters of a field's path, which clients choose parts of


def common_length(lengths: Iterable[int], total: int) -> int:
    """Returns the greatest length to which texts of ``lengths`` can be cut so that they have ``total`` characters
    together: short texts stay whole, and the longest are cut."""
    ordered = sorted(lengths)
    for place, length in enumerate(ordered):
        share = total // (len(ordered) - place)
        if length > share:
            return share
        total -= length
    return ordered[-1] if ordered else 0


def redacted_record(
    texts: RequestTexts, source: Mapping[str, str], max_characters: int, rest: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Returns the record of a request, a JSON object, with ``max_characters`` of its prompt and as many of its answers
    at most, redacted. ``source`` are further fields, such as its trace. ``rest`` is called between pieces of the
    work."""
    found = Counter[str]()
    truncated = texts.truncated

    def redacted(all_texts: Sequence[LoggedText]) -> list[dict[str, str]]:
        nonlocal truncated
        length, rows = common_length([len(each.text) for each in all_texts], max_characters), []
        for each in all_texts:
            name, head = redacted_head(each.field, MAX_NAME, rest), redacted_head(each.text, length, rest)
            found.update(head.kinds)
            truncated = truncated or head.cut
            rows.append({"field": name.text, "origin": each.origin, "text": head.text})
        return rows

    prompt, answers = redacted(texts.prompt), redacted(texts.answers)
    return {
        "time": datetime.fromtimestamp(texts.started_at, UTC).isoformat(timespec="milliseconds"),
        **source,
        "request_id": texts.request_id,
        "entry": texts.id,
        "tenant": texts.tenant,
        "endpoint": texts.endpoint,
        "tier": texts.tier,
        "outcome": texts.outcome,
        "finish_reasons": list(texts.finish_reasons),
        "prompt": prompt,
        "answers": answers,
        "redacted": dict(sorted(found.items())),
        "truncated": truncated,
    }
