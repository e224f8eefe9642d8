"""``AdminClient``: calls the admin API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import httpx

TIMEOUT_S = 30.0


class AdminError(Exception):
    """The service cannot be reached, or refuses the request. The message is for people."""


class AdminClient:
    """Calls the service at ``url`` with an API key; an empty key is not sent. ``transport`` replaces the network in
    tests. Each method raises AdminError."""

    def __init__(self, url: str, key: str, transport: httpx.BaseTransport | None = None) -> None:
        key = checked_key(key)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._url = url
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, transport=transport)

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Calls the API and returns the JSON object of its answer. ``body`` is sent as JSON; None: no body is sent.
        ``query`` has the query parameters."""
        try:
            answer = self._send(method, path, body, query).json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise AdminError(f"{self._url}: what answers there is no Manta service")
        return answer

    def text(self, path: str, query: Mapping[str, str]) -> str:
        """Returns the text of a response that is not JSON, such as CSV."""
        return self._send("GET", path, None, query).text

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, str] | None
    ) -> httpx.Response:
        try:
            answer = self._http.request(method, path, json=body, params=query)
        except (httpx.LocalProtocolError, httpx.InvalidURL):
            # Without its text and its traceback, which quote the headers and so the key.
            raise AdminError(f"{self._url}: the request cannot be sent") from None
        except httpx.HTTPError as error:
            raise AdminError(f"{self._url} cannot be reached: {error}") from error
        if answer.is_error:
            raise AdminError(f"{answer.status_code}: {_message(answer)}")
        return answer


def checked_key(text: str) -> str:
    """Returns the key in ``text`` without surrounding white space, such as the line feed of a key file.

    Raises AdminError, which does not quote the key, for a key that is not allowed in an HTTP header.
    """
    key = text.strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise AdminError("the admin key must be one line of printable ASCII without spaces")
    return key


def _message(answer: httpx.Response) -> str:
    """Returns the message of an error in OpenAI's format, or the beginning of any other answer."""
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
