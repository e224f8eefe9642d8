"""A prompt that cannot fit into the model's context is refused before a check reads it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.router.guarded import CHAT, TEXT, Guarded

CONTEXT = 1024  # tokens, of the tier of these tests
WORDS = "the river runs to the sea and back "


def bodies(text: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        (CHAT, {"messages": [{"role": "user", "content": text}]}),
        (CHAT, {"messages": [{"role": "user", "content": "hi"}, {"role": "system", "content": text}]}),
        (TEXT, {"prompt": text}),
        (TEXT, {"prompt": ["hi", text]}),
    ]


@pytest.mark.parametrize("place", range(4))
def test_a_prompt_that_cannot_fit_is_not_read(guarded: Guarded, place: int) -> None:
    path, body = bodies(WORDS * (17 * CONTEXT // len(WORDS)))[place]
    answer = guarded.post(path, body)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert answer.json()["error"]["param"] == ("messages" if path == CHAT else "prompt")
    assert not guarded.classifier.texts


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("text", [WORDS * (15 * CONTEXT // len(WORDS)), "\n" * 100_000 + "x"])
def test_a_prompt_that_may_fit_is_read(guarded: Guarded, place: int, text: str) -> None:
    guarded.policies.set(structure=None, deadline_s=30)
    text = f"{place} {text}"  # what was read before is remembered
    path, body = bodies(text)[place]

    assert guarded.post(path, body).status_code == 200
    assert text in guarded.classifier.texts


def test_a_megabyte_is_refused_by_the_default_policy(guarded: Guarded) -> None:
    texts = [WORDS * 400] * 20  # each fits
    answer = guarded.post(TEXT, {"prompt": texts})

    assert answer.json()["error"]["code"] == "content_filter"
    assert not guarded.classifier.texts
