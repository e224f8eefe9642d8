"""The whole way of a request, top-down: read, authenticate, choose a tier, generate, answer."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic

from engine.api import MAX_CHOICES, GenerationRequest, RequestError
from router.access.api_keys import ApiKeys, Principal
from router.config import RouterConfig
from router.generation.merge import frame, gather, generate
from router.openai.endpoint import Request, Stamp, WireFormat
from router.openai.errors import InvalidRequestError, OverloadError, translate
from router.ports.tiers import TierBackend
from router.tiers.choose import Route, choose_tier
from router.tiers.forecast import Forecaster
from router.transport.http import Exchange


@dataclass(frozen=True, slots=True)
class Task(Generic[Request]):
    """A request that may run: checked, routed, with one sequence per prompt."""

    request: Request
    route: Route
    sequences: list[GenerationRequest]


class Pipeline:
    """The router's rooms in the order in which a request passes them."""

    def __init__(self, config: RouterConfig, backend: TierBackend, forecaster: Forecaster | None = None) -> None:
        self.keys = ApiKeys(config.keys)
        self.backend = backend
        self._config = config
        self._forecaster = forecaster
        self._active = 0

    async def serve(self, exchange: Exchange, wire: WireFormat[Request]) -> None:
        """Answer one generation request. What goes wrong is raised, for the application to tell the client."""
        if self._active >= self._config.max_concurrent_requests:
            raise OverloadError("The service is at its limit.", "overloaded", retry_after_s=1)
        self._active += 1
        try:
            async with asyncio.timeout(self._config.request_timeout_s):
                await self._serve(exchange, wire)
        except RequestError as error:
            raise translate(error, wire.prompt_field) from None  # only here is it known what the format calls a prompt
        finally:
            self._active -= 1

    async def _serve(self, exchange: Exchange, wire: WireFormat[Request]) -> None:
        principal = self.keys.authenticate(exchange.header("authorization"))
        request = wire.parse(await exchange.body(self._config.max_body_bytes))
        task = self._prepare(principal, self._profiled(request), wire)
        exchange.headers += [
            (b"x-manta-tier", task.route.tier.encode()),
            (b"x-manta-route-reason", task.route.reason.encode("ascii", "replace")),
        ]
        try:
            await exchange.while_connected(self._generate(exchange, wire, task))
        except RequestError as error:
            if error.param == "grammar":  # one of several fields asked for it
                param, message = next(iter(task.request.forms)), error.message
                if param == "tools":  # the grammar is ours: what follows the reason quotes it
                    message = message.partition("\n")[0].replace("The lark", "The schema of a tool")
                raise RequestError(message, param, error.code) from None
            raise

    def _profiled(self, request: Request) -> Request:
        """Raises InvalidRequestError for a profile that is not configured."""
        if request.profile is None:
            return request
        profile = self._config.profiles.get(request.profile)
        if profile is None:
            known = ", ".join(self._config.profiles)
            raise InvalidRequestError(f"There is no such profile; there are {known}.", "unknown_profile", "profile")
        return request.within(profile.model_dump(exclude_none=True))

    def _prepare(self, principal: Principal, request: Request, wire: WireFormat[Request]) -> Task[Request]:
        prompts = wire.prompts(request)
        if len(prompts) > self._config.max_prompts:
            message = f"At most {self._config.max_prompts} prompts fit in one request, got {len(prompts)}."
            raise InvalidRequestError(message, "too_many_prompts", wire.prompt_field)
        sampling = wire.sampling(request)
        many = len(prompts) * sampling.side_by_side
        if many > MAX_CHOICES:
            message = f"At most {MAX_CHOICES} answers fit in one request, {many} are asked for."
            param = "n" if sampling.n == sampling.side_by_side else "best_of"
            raise InvalidRequestError(message, "too_many_choices", param)
        if request.stream and sampling.choices > sampling.n:
            raise InvalidRequestError("The best answers are known at the end: they are not streamed.", None, "best_of")
        tiers = [tier.name for tier in self.backend.status()]
        auto, forecaster = self._config.auto, self._forecaster
        route = choose_tier(request.model, prompts, sampling.max_tokens, tiers, auto, forecaster)
        # Not the client's request id: two clients may choose the same.
        sequences = [
            GenerationRequest(
                uuid.uuid4().hex,
                prompt,
                sampling,
                cache_salt=principal.tenant,
                tenant=principal.tenant,
                priority=request.class_of_service,
                deadline_s=request.deadline_s,
            )
            for prompt in prompts
        ]
        return Task(request, route, sequences)

    async def _generate(self, exchange: Exchange, wire: WireFormat[Request], task: Task[Request]) -> None:
        sampling = task.sequences[0].sampling
        stamp = Stamp(wire.id_prefix + uuid.uuid4().hex, int(time.time()), task.route.tier)
        async with aclosing(generate(self.backend, task.route.tier, task.sequences)) as batches:
            if task.request.stream:
                include_usage = task.request.include_usage
                frames = wire.frames(task.request, stamp, include_usage)
                await exchange.stream(frame(batches, frames, sampling.choices, include_usage))
            else:
                answers, usage = await gather(batches, len(task.sequences), sampling)
                await exchange.answer(200, wire.whole(task.request, stamp, answers, usage))
