"""The figures of the bench of bad clients, and its connections at a server that lets them be."""

from __future__ import annotations

import asyncio

import pytest

from load_tests.clients.__main__ import make_parser
from load_tests.clients.attacks import Attack, Outcome, Target, attack
from load_tests.clients.measure import BadClients, Fared, report


def test_the_ratio_is_that_of_the_attack_to_the_undisturbed_time_before() -> None:
    phases = [Fared([0.2] * 10), Fared([0.1] * 5 + [0.6] * 5, failed=1), Fared([0.9] * 10)]
    outcomes = [Outcome(408, 10.0), Outcome(408, 12.0), Outcome(None, None)]
    figures = report(phases, outcomes, 5)
    assert figures["p99_ratio"] == 3.0
    assert figures["failed"] == [0, 1, 0]
    assert figures["closed_by_server"] == 2
    assert figures["closed_after_s"] == {"p50": 11.0, "max": 12.0}
    assert figures["statuses"] == {"408": 2, "None": 1}


def test_without_a_closed_connection_there_is_no_time() -> None:
    assert report([Fared([0.1])] * 3, [], 5)["closed_after_s"] == {"p50": None, "max": None}


@pytest.mark.parametrize("kind", list(Attack))
async def test_connections_stay_until_they_are_closed(kind: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("load_tests.clients.measure.OPENING_S", 0.0)
    came = asyncio.Semaphore(0)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.release()
        while await reader.read(1000):
            pass
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        bad = BadClients(kind, Target("127.0.0.1", port, "key", interval_s=0.01), 3)
        async with asyncio.timeout(10):
            for _ in range(3):
                await came.acquire()
        assert await bad.close() == [Outcome(None, None)] * 3


async def test_a_client_that_was_answered_goes_on_until_its_connection_is_closed() -> None:
    after_the_answer = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        await reader.readexactly(20)
        after_the_answer.set()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, asyncio.timeout(10):
        port = server.sockets[0].getsockname()[1]
        outcome = await attack(Attack.TRICKLE, Target("127.0.0.1", port, "key", interval_s=0.01), 1)
    assert outcome.status == 408
    assert outcome.closed_s is not None
    assert after_the_answer.is_set()


def test_an_attack_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--attack", "other"])
