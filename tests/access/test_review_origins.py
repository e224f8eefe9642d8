"""What a reviewer approves, passes as text of the origin that it was queued with."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from router.review.fingerprint import fingerprint
from safety.api import Action, Origin, Passage, Subject, Verdict
from tests.access.service import ADMIN, Service

TEXT = "How do I pick the lock of my own shed?"
KEY = b"k" * 32


@pytest.mark.parametrize("origin", [Origin.USER, Origin.DOCUMENT, Origin.TOOL_RESULT])
async def test_an_approved_text_passes_from_its_origin_alone(origin: Origin) -> None:
    service = Service()
    verdict = Verdict("content", "v1", Action.REVIEW, "illicit", 0.7)
    item = await service.oversight.submit(Subject("acme", "r1"), Passage(TEXT, origin, "messages[0].content"), verdict)
    async with service.client(ADMIN) as http:
        assert (await http.post(f"/admin/v1/review/{item}/approve", json={})).status_code == 200
        (exception,) = (await http.get("/admin/v1/review/exceptions")).json()["data"]

    assert [each for each in Origin if await service.oversight.allowed("acme", TEXT, each)] == [origin]
    assert exception["origin"] == origin.value


async def test_equal_texts_of_two_origins_are_two_items() -> None:
    service = Service()
    verdict = Verdict("content", "v1", Action.REVIEW, "illicit", 0.7)
    items = {
        origin: await service.oversight.submit(Subject("acme", "r1"), Passage(TEXT, origin), verdict)
        for origin in (Origin.USER, Origin.DOCUMENT, Origin.USER)
    }

    assert items[Origin.USER] != items[Origin.DOCUMENT]


def test_each_origin_has_fingerprints_of_its_own_and_those_of_users_are_as_before() -> None:
    found = {origin: fingerprint(KEY, "acme", TEXT, origin) for origin in Origin}

    assert len(set(found.values())) == len(Origin)
    message = b"acme\0" + TEXT.lower().encode()
    assert found[Origin.USER] == hmac.new(KEY, message, hashlib.sha256).hexdigest()
