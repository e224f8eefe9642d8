"""``Endpoint``: the protocol that every wire format implements, such as OpenAI's chat completions.

A format reads and writes bodies; it knows no transport, which adds framing to them.
"""

from __future__ import annotations

from typing import Protocol

from router.errors import RefusalError
from router.inference_request import InferenceRequest


class Endpoint(Protocol):
    """Reads the requests of one format. ``InferenceRequest.writer`` writes their answers."""

    def parse(self, body: bytes) -> InferenceRequest:
        """Read a request. Raises InvalidRequestError that names the field which is wrong."""
        ...

    def error(self, refusal: RefusalError) -> str:
        """The body of an error: a whole answer, or the last message of a stream."""
        ...
