"""``Endpoint``: the protocol that every wire format implements, such as that of OpenAI's chat completions.

A wire format parses and writes bodies. The transport carries them and adds the framing, such as HTTP and SSE.
"""

from __future__ import annotations

from typing import Protocol

from router.errors import RefusalError
from router.inference_request import InferenceRequest


class Endpoint(Protocol):
    """The parser of requests and the writer of errors of one wire format. ``InferenceRequest.writer`` writes the
    responses."""

    def parse(self, body: bytes) -> InferenceRequest:
        """Returns the request in ``body``. Raises InvalidRequestError or RequestError, which names the wrong field."""
        ...

    def error(self, refusal: RefusalError) -> str:
        """Returns the body of an error. The body is sent as the whole response, or as the last message of an open
        stream."""
        ...
