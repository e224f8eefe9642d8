"""Blocked phrases as banned token sequences: the model writes something else, where a scanner could only halt. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from router.inference_request import InferenceRequest


def without_words(request: InferenceRequest, words: Sequence[str]) -> InferenceRequest:
    """Returns the request with ``words`` among those that the engine must not write.

    An answer that has a given form stays as it is: a form may leave no other way than a banned word, which fails the
    request, where a scanner ends the answer with a reason. So does one of prompts of token ids, whose model may have no
    tokenizer.
    """
    sampling = request.sampling
    if not words or sampling.grammar is not None or any(isinstance(prompt, tuple) for prompt in request.prompts):
        return request
    return replace(request, sampling=replace(sampling, bad_words=(*sampling.bad_words, *words)))
