"""``make_pipeline``: joins the steps of an inference request to a ``Pipeline``."""

from __future__ import annotations

from router.admission.admission import Admission
from router.answer_source import AnswerSource
from router.config.router import RouterConfig
from router.pipeline import Pipeline, PipelineSteps
from router.prompts.context_overflow import ContextOverflow
from router.requests.cache_look_up import CacheLookUp
from router.requests.request_admission import RequestAdmission
from router.requests.request_retrieval import RequestRetrieval
from router.requests.text_logging import TextLogging
from router.requests.tier_routing import TierRouting
from router.router_parts import RouterParts


def make_pipeline(config: RouterConfig, parts: RouterParts) -> Pipeline:
    """Returns the pipeline of the router that has ``parts``."""
    backend, limiter, ledger = parts.backend, parts.limiter, parts.ledger
    overflow = ContextOverflow(config.prompts)
    admission = Admission(config.admission, parts.clock, parts.counts)
    routing = TierRouting(parts.choice, backend, overflow, limiter.tokens_per_character)
    request_admission = RequestAdmission(config, admission, limiter, ledger, backend, parts.cache)
    steps = PipelineSteps(
        intake=parts.intake,
        prompts=parts.prompts,
        routing=routing,
        idempotency=parts.idempotency,
        retrieval=RequestRetrieval(parts.retriever, routing, request_admission, parts.accounting, backend),
        admission=request_admission,
        accounting=parts.accounting,
        inspection=parts.inspection,
        look_up=CacheLookUp(parts.cache, {tier.name: tier.version for tier in backend.tiers()}),
        source=AnswerSource(config, backend, ledger, admission, overflow, routing.room_of, parts.counts),
        texts=TextLogging(parts.texts, config.tenants),
        streams=parts.streams,
    )
    return Pipeline(config, backend, parts.clock, limiter.tokens_per_character, steps)
