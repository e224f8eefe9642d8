"""The cache keys: digests of everything that decides an answer. One is the key of the exact request, the other that of
the partition, whose requests differ in the last question alone. Pure.

Both are SHA-256 digests of the dataclasses' ``repr``, which has all of their members and quotes all texts: two requests
are written alike only if they are equal. A member that is added to a prompt's or the sampling's type decides at once.
Members that decide when and how an answer is sent, but not its content, are left out: streaming, priority, deadline,
the user's name, the most cost.

Each request pays for its digests. ``repr`` takes a fifth of the time of JSON made member by member, and earlier turns
are written once for both.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from engine.api import Conversation, Message, Prompt, SamplingParams
from router.config.profiles import MIN_TOP_P
from router.inference_request import InferenceRequest

MAX_QUESTION_CHARS = 2000
"""The longest question that is compared by its meaning. An encoder sees a few hundred tokens; of a longer text it would
compare the beginning alone."""
PLACE = "\x00question"
"""Stands for the question in the partition. A request with this very text has no better hits for it."""
NO_CUTS = (None, 0.0, 0, 1.0, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class CacheScope:
    """The inputs beside the request itself that decide an answer. ``role`` is that of the API key. ``policy`` is the
    version of the tenant's safety policy, and ``checks`` has the versions of its classifier and lists. ``weights`` is
    the version of the tier's model weights."""

    tenant: str
    tier: str
    model_version: str
    policy: str = ""
    role: str = ""
    weights: str = ""
    checks: str = ""


@dataclass(frozen=True, slots=True)
class CacheKeys:
    """``exact`` is the key of a request, ``partition`` that of requests that differ in ``question`` alone. Both are
    lower-case hexadecimal. ``question`` is "" for a request that is answered by its exact key alone."""

    exact: str
    partition: str
    question: str


def cache_keys(scope: CacheScope, request: InferenceRequest) -> CacheKeys:
    """Returns the digests of ``request`` in ``scope``."""
    version = request.template_version or ""
    decides = (scope, request.cache.namespace, version, request.parsing, _effective(request.sampling))
    begun = hashlib.sha256()
    _update(begun, decides)
    if len(request.prompts) != 1:
        _update(begun, list(request.prompts))
        return CacheKeys(begun.hexdigest(), begun.hexdigest(), "")
    question, last = _begin(begun, request.prompts[0])
    exact, partition = begun.copy(), begun
    _update(exact, last)
    if question:
        assert isinstance(last, Message), "only a message has a question"
        _update(partition, replace(last, content=PLACE))
        return CacheKeys(exact.hexdigest(), partition.hexdigest(), question)
    return CacheKeys(exact.hexdigest(), exact.hexdigest(), "")


def _begin(digest: hashlib._Hash, prompt: Prompt) -> tuple[str, Message | Prompt]:
    """Adds to ``digest`` all of a prompt but its last part. Returns the question, and that part, which has it.

    The question is "" if there is none that could be compared by its meaning: the prompt is no conversation, does not
    end with a user's text, or that is long. A text is continued, not answered: another one of the same meaning goes on
    in other words.
    """
    if not isinstance(prompt, Conversation) or not prompt.messages:
        return "", prompt
    *earlier, last = prompt.messages
    _update(digest, (prompt.tools, prompt.template_kwargs, len(earlier)))
    _update(digest, (prompt.add_generation_prompt, prompt.continue_final_message))
    _update(digest, earlier)
    asks = last.role == "user" and not prompt.continue_final_message and _comparable(last.content)
    return (last.content if asks else ""), last


def _update(digest: hashlib._Hash, value: object) -> None:
    digest.update(repr(value).encode("utf-8", "surrogatepass"))


def is_greedy(sampling: SamplingParams) -> bool:
    """Returns whether the sampling parameters mean greedy decoding."""
    if sampling.beam is not None:
        return not sampling.beam.do_sample
    return sampling.temperature == 0 or sampling.top_k == 1 or sampling.top_p <= MIN_TOP_P


def _effective(sampling: SamplingParams) -> SamplingParams:
    """Returns ``sampling`` without what has no effect on a greedy answer."""
    if not is_greedy(sampling):
        return sampling
    if sampling.beam is not None:
        return sampling if sampling.seed is None else replace(sampling, seed=None)
    cuts = sampling.seed, sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, sampling.typical_p
    if cuts == NO_CUTS:  # as usual; a copy is checked again, which takes longer than all of the rest
        return sampling
    return replace(sampling, seed=None, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0)


def _comparable(text: str) -> bool:
    return bool(text.strip()) and len(text) <= MAX_QUESTION_CHARS
