"""``EmbeddingRequests``: the way of a request that asks for the vectors of texts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace

from router.embedding_request import EMBEDDINGS, EmbeddingAccepted, EmbeddingRequest, EmbeddingResult
from router.embeddings.embedding import check_embedding, embedded, embedding, priced_request
from router.inference_request import Call
from router.ledger.ledger import Account
from router.ledger.ledger_entry import decision_of
from router.ports.clock import Clock
from router.ports.embedder import Embedder
from router.ports.trace_names import SpanName
from router.requests.request_accounting import RequestAccounting
from router.requests.request_inspection import RequestInspection
from router.requests.request_intake import RequestIntake
from router.trace_attributes import identified
from safety.api import Origin, Passage, TextUse


class EmbeddingRequests:
    """Embeds texts once the guard has inspected them. ``embedder`` None: the service has none. ``aliases`` are other
    names of its model."""

    def __init__(
        self,
        intake: RequestIntake,
        accounting: RequestAccounting,
        inspection: RequestInspection,
        embedder: Embedder | None,
        aliases: Sequence[str],
        clock: Clock,
    ) -> None:
        self._intake = intake
        self._accounting = accounting
        self._inspection = inspection
        self._embedder = embedder
        self._aliases = aliases
        self._clock = clock

    async def run(
        self, call: Call, parse: Callable[[bytes], EmbeddingRequest]
    ) -> AsyncGenerator[EmbeddingAccepted | EmbeddingResult, None]:
        """Authenticates and parses a request for embeddings. Yields EmbeddingAccepted, and then the result.

        Closing the generator drops the texts that are not computed yet. Raises a RefusalError: NotFoundError if the
        service has no embedder, UnavailableError if the embedder does not answer, and what
        ``RequestInspection.inspect_texts`` raises.
        """
        started_at, trace = self._clock.now(), call.trace
        async with self._intake.open(call) as principal:
            embedder = embedding(self._embedder)
            request = parse(await self._intake.body(call))
            check_embedding(request, principal, embedder, self._aliases)
            account = Account(call, principal, priced_request(request), EMBEDDINGS, embedder.model, started_at)
            trace.describe(identified(account))
            trace.enter(SpanName.LIMITS)
            hold = await self._accounting.reserve(account)
            with self._accounting.settling(account, hold):
                trace.enter(SpanName.SAFETY)
                inspected = await self._inspection.inspect_texts(account, passages_of(request), TextUse.EMBEDDING)
                request = replace(request, texts=inspected.texts)
                trace.enter(SpanName.ANSWER)
                yield EmbeddingAccepted(hold.decision, decision_of(account.ruling, ()))
                result = await embedded(embedder, request, principal.tenant, account.meter)
            yield result


def passages_of(request: EmbeddingRequest) -> list[Passage]:
    """Returns the texts of ``request`` as passages."""
    pairs = zip(request.texts, request.fields, strict=True)
    return [Passage(text, Origin.USER, field) for text, field in pairs]
