"""Which requests the answer cache may answer, and which answers it may store. Pure. Each reason is a word or two, for
the header x-manta-cache and for counters."""

from __future__ import annotations

from collections.abc import Sequence

from engine.api import FinishReason
from router.cache.cache_key import is_greedy
from router.complete_answer import Answer
from router.inference_request import InferenceRequest
from safety.api import Action, Inspection, Ruling

WHOLE = (FinishReason.STOP, FinishReason.LENGTH)
"""How an answer ends that the request would get again. One that ends at ``max_tokens`` is whole: all requests with its
key have the same limit."""


def bypass_reason(request: InferenceRequest, ruling: Ruling | None, *, sampled_allowed: bool) -> str:
    """Returns why the cache neither answers ``request`` nor stores its answer; "" if it may do both.

    ``ruling`` is the guard's decision on the request; None: the service has no guard. ``sampled_allowed``: the tenant
    also wants answers stored that were sampled without a seed, and that would differ each time.
    """
    sampling = request.sampling
    if not request.prompts or sampling.max_tokens == 0:
        return "no answer"
    if sampling.logprobs is not None or sampling.prompt_logprobs is not None:
        return "logprobs"  # large, and rarely asked for twice
    if not (sampled_allowed or is_greedy(sampling) or sampling.seed is not None):
        return "sampled"
    return "" if ruling is None else _unsafe(ruling)


def _unsafe(ruling: Ruling) -> str:
    """Returns why a request that the guard has inspected is not for the cache."""
    if ruling.refused:
        return "refused"
    if ruling.unscanned or ruling.unavailable:
        return "unscanned"
    if ruling.restored:
        return "pseudonyms"  # the answer has what they stand for
    return "review" if ruling.action in (Action.REVIEW, Action.BLOCK) else ""


def unstorable_reason(answers: Sequence[Answer], choices: int, inspections: Sequence[Inspection]) -> str:
    """Returns why ``answers`` are not stored; "" if they may be.

    There must be ``choices`` of them, whole, with text or a tool call; and the guard must have found nothing in them.
    ``inspections`` are the guard's records of its checks of the answers.
    """
    if len(answers) != choices:
        return "incomplete"
    for answer in answers:
        if answer.finish_reason not in WHOLE:
            return str(answer.finish_reason)
        if not (answer.text.strip() or answer.tool_calls):
            return "empty"
        if answer.tool_calls and not answer.called:
            return "incomplete"
    verdicts = (verdict for inspection in inspections for verdict in inspection.verdicts)
    if any(verdict.error is not None or verdict.action is not Action.ALLOW for verdict in verdicts):
        return "moderated"
    return ""
