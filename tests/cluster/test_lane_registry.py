"""Who owns a request, whatever order lanes close and submissions land in."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cluster.lanes.dataclass_codec import Row
from cluster.lanes.lane_messages import fault_in, pack, pack_request, unpack_refusal
from cluster.lanes.request_validation import MAX_INLINE_PROMPT
from cluster.replica.lane_registry import LaneRegistry
from cluster.replica.tier_replica import MAX_LONG_REQUESTS, MAX_NEW_GRAMMARS
from engine.api import Delta, EngineDeadError, FinishReason, GenerationRequest, Grammar, SamplingParams, Usage
from tests.cluster.engines import LocalReplica
from tests.cluster.lanes import settle


def row(request_id: str, last: bool = False) -> Row:
    end = (FinishReason.STOP, Usage(1, 1, 0)) if last else ()
    return pack([Delta(request_id, (1,), "x", *end)])[0]


async def test_rows_reach_the_lane_that_owns_them_until_the_last() -> None:
    registry = LaneRegistry()
    one, two = registry.open("one"), registry.open("two")
    assert registry.claim("one", "a")
    assert registry.claim("two", "b")
    registry.deliver([row("a"), row("b"), row("a", last=True), row("a"), row("nobody")])
    assert [r[0] for r in await one.take(0)] == ["a", "a"]
    assert [r[0] for r in await two.take(0)] == ["b"]
    assert registry.requests == 1


async def test_an_idle_lane_gives_an_empty_item_after_its_time() -> None:
    assert await LaneRegistry().open("one").take(0) == []


def test_closing_a_lane_names_its_unfinished_requests_only() -> None:
    registry = LaneRegistry()
    registry.open("one")
    registry.open("two")
    registry.claim("one", "a")
    registry.claim("one", "done")
    registry.release("done")
    registry.claim("two", "b")
    assert registry.close("one") == ["a"]
    assert registry.owns("two", "b")


def test_an_id_with_an_owner_is_not_claimed_again() -> None:
    registry = LaneRegistry()
    registry.open("one")
    registry.open("two")
    assert registry.claim("one", "a")
    assert not registry.claim("two", "a")
    assert not registry.claim("closed", "b")
    assert registry.close("two") == []
    assert registry.owns("one", "a")


def test_one_lane_is_not_opened_twice() -> None:
    registry = LaneRegistry()
    registry.open("one")
    with pytest.raises(ValueError, match="open already"):
        registry.open("one")


class TestRollouts:
    """Orphans must not go to a router of a release that ignores them."""

    @pytest.mark.parametrize("accounts", [("", "draft"), ("draft", "")])
    async def test_orphans_go_to_a_lane_that_brings_accounts(self, accounts: tuple[str, str]) -> None:
        registry = LaneRegistry()
        dead, one, two = (registry.open(name) for name in ("dead", "one", "two"))
        for name, account in (("dead", "its draft"), ("one", accounts[0]), ("two", accounts[1])):
            registry.claim(name, f"of-{name}", account)
        registry.deliver([row("of-dead", last=True)])
        await dead.take(0)

        registry.close("dead")

        taken = [[orphan[0] for orphan in lane.take_orphans()] for lane in (one, two)]
        assert taken == [["of-dead"] if account else [] for account in accounts]

    def test_where_no_lane_has_brought_an_account_each_gets_them(self) -> None:
        registry = LaneRegistry()
        _, one, two = (registry.open(name) for name in ("dead", "one", "two"))
        registry.claim("dead", "a", "draft")
        registry.close("dead")
        registry.deliver([row("a", last=True)])  # what the engine has counted by the abort

        assert [[orphan[0] for orphan in lane.take_orphans()] for lane in (one, two)] == [["a"], ["a"]]


async def test_a_long_prompt_whose_lane_closes_meanwhile_leaves_no_orphan() -> None:
    replica = LocalReplica()
    lane = replica.actor.lane("one", replica_id="r")
    await anext(lane)
    gate = threading.Event()
    submit = replica.engine.submit

    def slow_submit(request: GenerationRequest) -> None:
        gate.wait(10)
        submit(request)

    replica.engine.submit = slow_submit  # type: ignore[method-assign]
    request = GenerationRequest("long", "x" * (MAX_INLINE_PROMPT + 1), SamplingParams(max_tokens=5))
    submission = asyncio.ensure_future(replica.actor.submit("one", pack_request(request), replica_id="r"))
    await settle()
    await lane.aclose()
    gate.set()
    await submission
    assert not replica.engine.live


@pytest.mark.parametrize("grammar", [None, Grammar.regex("new")], ids=["long prompt", "new grammar"])
async def test_a_submission_that_is_cancelled_leaves_no_request_in_the_engine(grammar: Grammar | None) -> None:
    replica = LocalReplica()
    lane = replica.actor.lane("one", replica_id="r")
    await anext(lane)
    entered, gate, submit = threading.Event(), threading.Event(), replica.engine.submit

    def slow_submit(request: GenerationRequest) -> None:
        entered.set()
        gate.wait(10)
        submit(request)

    replica.engine.submit = slow_submit  # type: ignore[method-assign]
    sampling = SamplingParams(max_tokens=5, grammar=grammar)
    request = GenerationRequest("late", "x" * (MAX_INLINE_PROMPT + 1), sampling)
    submission = asyncio.ensure_future(replica.actor.submit("one", pack_request(request), replica_id="r"))
    await asyncio.to_thread(entered.wait, 10)
    submission.cancel()
    await asyncio.wait({submission})
    gate.set()
    for _ in range(100):
        await asyncio.sleep(0.01)
        if replica.engine.aborted:
            break
    assert (replica.engine.aborted, replica.engine.live) == (["late"], {})
    assert replica.actor._registry.requests == 0
    await lane.aclose()


@pytest.mark.parametrize(
    ("length", "new", "threads"), [(1, True, MAX_NEW_GRAMMARS), (MAX_INLINE_PROMPT + 1, False, MAX_LONG_REQUESTS)]
)
async def test_tenants_take_turns_with_what_takes_time_to_validate(length: int, new: bool, threads: int) -> None:
    replica = LocalReplica()
    lane = replica.actor.lane("one", replica_id="r")
    await anext(lane)
    gate, order, submit = threading.Event(), list[str](), replica.engine.submit

    def slow_submit(request: GenerationRequest) -> None:
        gate.wait(10)
        order.append(request.request_id)
        submit(request)

    def submission(tenant: str, number: int) -> asyncio.Future[object]:
        sampling = SamplingParams(max_tokens=5, grammar=Grammar.regex(f"{tenant}{number}") if new else None)
        request = GenerationRequest(f"{tenant}{number}", "x" * length, sampling, tenant=tenant)
        return asyncio.ensure_future(replica.actor.submit("one", pack_request(request), replica_id="r"))

    replica.engine.submit = slow_submit  # type: ignore[method-assign]
    flood = [submission("flood", number) for number in range(20)]
    await settle()
    others = [submission(tenant, 0) for tenant in ("one", "two")]
    await settle()
    gate.set()
    await asyncio.gather(*flood, *others)
    assert max(order.index("one0"), order.index("two0")) <= threads + 4
    await lane.aclose()


async def test_new_grammars_hold_up_neither_long_prompts_nor_known_grammars() -> None:
    replica = LocalReplica()
    replica.engine.grammars.add(Grammar.regex("known"))
    lane = replica.actor.lane("one", replica_id="r")
    await anext(lane)
    gate = threading.Event()
    submit = replica.engine.submit

    def slow_submit(request: GenerationRequest) -> None:
        if request.request_id.startswith("new"):
            gate.wait(10)
        submit(request)

    def submission(name: str, prompt: str = "x", grammar: Grammar | None = None) -> asyncio.Future[object]:
        request = GenerationRequest(name, prompt, SamplingParams(max_tokens=5, grammar=grammar))
        return asyncio.ensure_future(replica.actor.submit("one", pack_request(request), replica_id="r"))

    replica.engine.submit = slow_submit  # type: ignore[method-assign]
    new = [submission(f"new {number}", grammar=Grammar.regex(f"{number}")) for number in range(64)]
    known = submission("known", grammar=Grammar.regex("known"))
    long = submission("long", "x" * (MAX_INLINE_PROMPT + 1))

    answered = await asyncio.wait_for(asyncio.gather(known, long), 5)
    assert list(answered) == [None, None]
    assert not any(each.done() for each in new)
    gate.set()
    assert await asyncio.gather(*new) == [None] * 64
    assert len(replica.engine.live) == 66
    await lane.aclose()


async def test_a_request_for_a_lane_that_is_not_open_is_refused() -> None:
    replica = LocalReplica()
    refusal = await replica.actor.submit("closed", pack_request(GenerationRequest("a", "x")), replica_id="r")
    assert refusal is not None
    assert isinstance(unpack_refusal(refusal), EngineDeadError)
    assert not replica.engine.live


class PanicException(BaseException):
    """What Python sees of a panic in Rust."""


@pytest.mark.parametrize("fault", [ZeroDivisionError, PanicException])
async def test_one_request_of_several_that_breaks_takes_no_other_along(fault: type[BaseException]) -> None:
    replica = LocalReplica()
    lane = replica.actor.lane("one", replica_id="r")
    await anext(lane)
    submit = replica.engine.submit

    def breaking(request: GenerationRequest) -> None:
        if request.request_id == "bad":
            raise fault("a prompt")
        submit(request)

    replica.engine.submit = breaking  # type: ignore[method-assign]
    packed = [pack_request(GenerationRequest(name, "x", SamplingParams(max_tokens=5))) for name in ("a", "bad", "b")]
    replies = await replica.actor.submit_all("one", packed, replica_id="r")
    assert [fault_in(reply) for reply in replies] == [None, fault.__name__, None]
    assert [*replica.engine.live] == ["a", "b"]
    await lane.aclose()
    assert replica.actor._registry.requests == 0
