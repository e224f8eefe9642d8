"""Turns blocked phrases into the engine's banned token sequences. The model then writes something else, where a scanner
of the answer could only halt it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from router.inference_request import InferenceRequest


def without_words(request: InferenceRequest, words: Sequence[str]) -> InferenceRequest:
    """Returns ``request`` with ``words`` added to the words that the engine must not generate.

    A request with a grammar is returned unchanged: the grammar may leave nothing but a banned word, which would fail
    the request, where a scanner ends the answer with a reason. A request with prompts of token ids is returned
    unchanged too, since its model may have no tokenizer.
    """
    sampling = request.sampling
    if not words or sampling.grammar is not None or any(isinstance(prompt, tuple) for prompt in request.prompts):
        return request
    return replace(request, sampling=replace(sampling, bad_words=(*sampling.bad_words, *words)))
