"""Texts that come while a call to the classifier is under way go in one call, and share nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster.safety.classifier_client import ClassifierClient
from cluster.safety.classifier_replica import ClassifierReplica
from cluster.safety.classifier_reply import ClassifierReply
from cluster.safety.config import ClassifierConfig
from cluster.safety.gathered_ask import GatheredAsk, Texts
from cluster.safety.gathering import MAX_CHARACTERS, MAX_WAIT_S, GatheredCall, Gathering
from safety.api import ClassifierBusyError, ClassifierUnavailableError, Scores

GOOD = Scores({"violence": 0.5}, 0.25, flagged=False)


def reply(texts: Sequence[str]) -> ClassifierReply:
    return ClassifierReply("v2", (GOOD,) * len(texts))


class Item:
    def __init__(self, characters: int, came_at: float) -> None:
        self.characters = characters
        self.came_at = came_at


class Gatherings(RuleBasedStateMachine):
    """Items come, leave and are sent; calls end in any order; time goes on. The sender is as prompt as ``GatheredAsk``:
    it looks after each of these, and when something is due."""

    def __init__(self) -> None:
        super().__init__()
        self.gathering: Gathering[Item] = Gathering()
        self.now = 0.0
        self.waiting: list[Item] = []
        self.under_way: list[tuple[GatheredCall[Item], float]] = []

    def look(self) -> None:
        recent = any(sent + MAX_WAIT_S > self.now + 1e-9 for _, sent in self.under_way)
        calls = self.gathering.take(self.now)
        sent = [item for call in calls for item in call.items]
        if calls:
            assert sent == self.waiting  # all of them, in order, each once
            assert not recent or sum(item.characters for item in sent) >= MAX_CHARACTERS
            self.waiting = []
        for call in calls:
            assert len(call.items) == 1 or sum(item.characters for item in call.items) <= MAX_CHARACTERS
            self.under_way.append((call, self.now))

    @rule(characters=st.sampled_from([0, 1, 30, 380, 600, 1024, 5000]))
    def come(self, characters: int) -> None:
        item = Item(characters, self.now)
        self.waiting.append(item)
        self.gathering.add(item, characters)
        self.look()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(item)
        assert self.gathering.drop(item)
        assert not self.gathering.drop(item)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        ended = data.draw(st.sampled_from(self.under_way))
        self.under_way.remove(ended)
        self.gathering.ended(ended[0])
        self.look()

    @rule(seconds=st.sampled_from([0.001, 0.02, 0.06]))
    def go_on(self, seconds: float) -> None:
        end = self.now + seconds
        while (due_at := self.gathering.due_at(self.now)) is not None and due_at <= end:
            self.now = due_at
            self.look()
        self.now = end

    @invariant()
    def nothing_waits_without_reason_or_for_long(self) -> None:
        assert len(self.gathering) == len(self.waiting)
        if self.waiting:
            assert self.under_way
            assert self.now - self.waiting[0].came_at <= MAX_WAIT_S + 1e-9
            assert sum(item.characters for item in self.waiting) < MAX_CHARACTERS
        assert (self.gathering.due_at(self.now) is None) == (not self.waiting)


TestGatherings = Gatherings.TestCase


class Replica:
    """A replica whose calls end when the test lets them. ``calls`` has the texts of each."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.cancelled: list[list[str]] = []
        self.ends: list[asyncio.Future[object]] = []

    async def one(self, texts: Sequence[str], tenant: str) -> object:
        return await self._call([f"{tenant}:{text}" for text in texts], reply(texts))

    async def each(self, calls: Sequence[Texts]) -> object:
        names = [f"{tenant}:{text}" for texts, tenant in calls for text in texts]
        return await self._call(names, [reply(texts) for texts, _ in calls])

    async def _call(self, names: list[str], replies: object) -> object:
        self.calls.append(names)
        self.ends.append(asyncio.get_running_loop().create_future())
        try:
            answer = await self.ends[-1]
        except asyncio.CancelledError:
            self.cancelled.append(names)
            raise
        return replies if answer is None else answer

    async def end(self, answer: object = None) -> None:
        """Ends the oldest call: with its scores, or another answer, or an error."""
        end = next(each for each in self.ends if not each.done())
        if isinstance(answer, Exception):
            end.set_exception(answer)
        else:
            end.set_result(answer)
        await settle()


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


@pytest.fixture(name="replica")
def _replica() -> Replica:
    return Replica()


@pytest.fixture(name="client")
def _client(replica: Replica) -> ClassifierClient:
    config = ClassifierConfig.model_validate({"model": "unused", "deadline_ms": 60_000, "max_faults": 3})
    return ClassifierClient(GatheredAsk(replica.one, replica.each), config, "v1")


Answers = list[asyncio.Task[Sequence[Scores]]]


async def asked(client: ClassifierClient, *names: str) -> Answers:
    """Begins a call of each name, which is TENANT:TEXT, and waits until nothing happens any more."""
    tasks = []
    for name in names:
        tenant, text = name.split(":")
        tasks.append(asyncio.create_task(client.classify([text], tenant)))
    await settle()
    return tasks


async def test_what_comes_during_a_call_goes_in_the_next(client: ClassifierClient, replica: Replica) -> None:
    answers = await asked(client, "a:1", "b:2", "a:3")
    assert replica.calls == [["a:1"]]

    await replica.end()
    assert replica.calls == [["a:1"], ["b:2", "a:3"]]
    await replica.end()

    assert [await answer for answer in answers] == [[GOOD]] * 3


async def test_a_text_does_not_wait_for_a_call_that_hangs(client: ClassifierClient, replica: Replica) -> None:
    _, answer = await asked(client, "a:1", "a:2")
    await asyncio.sleep(2 * MAX_WAIT_S)
    assert replica.calls == [["a:1"], ["a:2"]]

    replica.ends[1].set_result(None)
    assert await answer == [GOOD]
    await replica.end()


async def test_a_batch_of_text_does_not_wait(client: ClassifierClient, replica: Replica) -> None:
    await asked(client, "a:1", "a:" + "x" * MAX_CHARACTERS, "a:2")

    assert [len(call) for call in replica.calls] == [1, 1]
    await replica.end()
    await replica.end()
    await replica.end()


async def test_one_bad_text_fails_alone(client: ClassifierClient, replica: Replica) -> None:
    _, bad, busy, nonsense, good = await asked(client, "a:1", "a:bad", "b:busy", "c:none", "d:good")
    await replica.end()
    failed, waits = ClassifierReply("v2", failure="it failed"), ClassifierReply("v2", failure="wait", busy=True)
    await replica.end([failed, waits, None, reply(["good"])])

    with pytest.raises(ClassifierUnavailableError, match="it failed"):
        await bad
    with pytest.raises(ClassifierBusyError):
        await busy
    with pytest.raises(ClassifierUnavailableError, match="nonsense"):
        await nonsense
    assert await good == [GOOD]
    assert client.state.value == "closed"


@pytest.mark.parametrize("answer", [None, [], [reply(["x"])], "text"], ids=["none", "empty", "too few", "text"])
async def test_an_answer_that_is_no_list_of_replies_fails_for_each(
    client: ClassifierClient, replica: Replica, answer: object
) -> None:
    answers = await asked(client, "a:1", "a:2", "b:3")
    await replica.end()
    await replica.end("text" if answer is None else answer)

    assert await answers[0] == [GOOD]
    for each in answers[1:]:
        with pytest.raises(ClassifierUnavailableError, match="nonsense"):
            await each


async def test_of_a_call_that_fails_each_caller_is_asked_for_by_itself(
    client: ClassifierClient, replica: Replica
) -> None:
    answers = await asked(client, "a:0", "a:1", "a:2", "b:3")
    await replica.end()
    await replica.end(ClassifierUnavailableError("the classifier was lost"))
    assert replica.calls[2:] == [["a:1"], ["a:2"], ["b:3"]]
    await replica.end()
    await replica.end(ClassifierUnavailableError("this one loses the classifier"))
    await replica.end()

    assert [await answers[1], await answers[3]] == [[GOOD]] * 2
    with pytest.raises(ClassifierUnavailableError, match="this one"):
        await answers[2]
    assert client.state.value == "closed"


@pytest.mark.parametrize("error", [ClassifierUnavailableError("the classifier was lost"), KeyError("no such method")])
async def test_a_lost_replica_is_a_fault_for_each_caller_of_the_call(
    client: ClassifierClient, replica: Replica, error: Exception
) -> None:
    answers = await asked(client, "a:0", "a:1", "a:2", "b:3")
    await replica.end()
    await replica.end(error)
    for number in range(3):
        await replica.end(ClassifierUnavailableError(f"lost {number}"))

    errors = await asyncio.gather(*answers[1:], return_exceptions=True)
    assert [str(each) for each in errors] == ["lost 0", "lost 1", "lost 2"]
    assert client.state.value == "open"


async def test_a_call_that_is_cancelled_under_its_callers_is_a_fault(
    client: ClassifierClient, replica: Replica
) -> None:
    (answer,) = await asked(client, "a:0")
    replica.ends[0].cancel()
    await settle()

    with pytest.raises(ClassifierUnavailableError, match="cancelled"):
        await answer


async def test_a_caller_that_leaves_takes_its_waiting_text_along(client: ClassifierClient, replica: Replica) -> None:
    _, leaves, stays = await asked(client, "a:1", "a:2", "a:3")
    leaves.cancel()
    await replica.end()

    assert replica.calls == [["a:1"], ["a:3"]]
    await replica.end()
    assert await stays == [GOOD]


async def test_a_call_is_given_up_with_the_last_of_its_callers(client: ClassifierClient, replica: Replica) -> None:
    _, first, second = await asked(client, "a:1", "a:2", "a:3")
    await replica.end()
    first.cancel()
    await settle()
    assert replica.cancelled == []
    second.cancel()
    await settle()

    assert replica.cancelled == [["a:2", "a:3"]]
    assert client.state.value == "closed"
    (answer,) = await asked(client, "a:4")  # nothing is under way any more
    await replica.end()
    assert await answer == [GOOD]


async def test_a_late_caller_is_told_so_while_others_of_its_call_wait(replica: Replica) -> None:
    settings = {"model": "unused", "deadline_ms": 1, "deadline_ms_per_1000_characters": 0}
    ask = GatheredAsk(replica.one, replica.each)
    hasty = ClassifierClient(ask, ClassifierConfig.model_validate(settings), "v1")
    patient = ClassifierClient(ask, ClassifierConfig.model_validate(settings | {"deadline_ms": 60_000}), "v1")
    first = await asked(patient, "a:1")
    late = asyncio.create_task(hasty.classify(["2"], "a"))
    others = await asked(patient, "a:3")
    await replica.end()
    assert replica.calls[1] == ["a:2", "a:3"]

    with pytest.raises(ClassifierUnavailableError, match=r"within 0\.001 s"):
        await late
    await replica.end()
    assert [await each for each in (*first, *others)] == [[GOOD]] * 2


class Model:
    """A classifier that breaks at one text."""

    version = "v2"

    def busy_s(self) -> float:
        return 0.0

    async def classify(self, texts: Sequence[str], tenant: str = "") -> Sequence[Scores]:
        if "broken" in texts:
            raise KeyError("a text")
        if "failing" in texts:
            raise ClassifierUnavailableError("it failed")
        return [GOOD] * len(texts)


async def test_a_replica_answers_each_caller_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    replica = ClassifierReplica(ClassifierConfig.model_validate({"model": "unused"}), lambda _: Model())

    replies = await replica.classify_each([(["a"], "t"), (["broken"], "t"), (["failing"], "u"), (["b", "c"], "u")])

    assert replies == [
        reply(["a"]),
        ClassifierReply("v2", failure="the classifier failed: KeyError"),
        ClassifierReply("v2", failure="it failed"),
        reply(["b", "c"]),
    ]
    assert "a text" not in caplog.text
