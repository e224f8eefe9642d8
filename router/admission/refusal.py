"""``refusal_error``: the error of a request that no tier takes now, with all that the decision has gone by. Pure."""

from __future__ import annotations

from router.admission.admission_decision import Reason, Refuse, RequestFacts, TierView
from router.errors import AdmissionRefusedError


def refusal_error(facts: RequestFacts, refused: Refuse, view: TierView, retry_after_s: float) -> AdmissionRefusedError:
    """Returns the error for ``refused``, the decision on the request ``facts``, which the client may repeat after
    ``retry_after_s`` seconds."""
    again = f"Please try again in {retry_after_s:.3g} s."
    return AdmissionRefusedError(f"{_words(refused)} {again}", details(facts, refused, view), retry_after_s)


def details(facts: RequestFacts, refused: Refuse, view: TierView) -> str:
    """Returns the value of the header ``x-manta-refused``."""
    parts = {
        "reason": refused.reason.value,
        "tier": refused.tier,
        "class": facts.priority.name.lower(),
        "value": f"{refused.value:.4g}",
        "limit": f"{refused.limit:.4g}",
        "ttft_s": "unknown" if view.ttft_s is None else f"{view.ttft_s:.4g}",
        "waiting": str(view.waiting_requests),
        "waiting_tokens": str(view.waiting_tokens),
        "ceiling": f"{refused.ceiling:.2f}",
    }
    if facts.surplus:
        parts["surplus"] = "yes"
    return "; ".join(f"{name}={value}" for name, value in parts.items())


def _words(refused: Refuse) -> str:
    """Returns the refusal for people."""
    late = f"The model is overloaded: the first token would come after {refused.value:.3g} s, "
    match refused.reason:
        case Reason.DEADLINE:
            return f"{late}later than deadline_s, {refused.limit:.3g} s."
        case Reason.TTFT:
            return f"{late}and requests of this class are taken up to {refused.limit:.3g} s."
        case Reason.QUEUE_REQUESTS:
            return f"The model is overloaded: {refused.value:.0f} requests of this class are waiting already."
        case Reason.QUEUE_TOKENS:
            return f"The model is overloaded: {refused.value:.0f} tokens of this class are waiting already."
        case Reason.CLASS_SHARE:
            return f"The model is overloaded: requests of this class and above have had {refused.value:.0%} of it."
