"""``predict_ttft``: when a request would get its first token from a replica with a given load. Pure.

A replica computes prompts in steps. A step takes a fixed time, plus one for each prompt token and each decoding
sequence, which the replica measures; the first prompt tokens may be free, computed while the weights are read. Of each
step, prompts that one chunk completes come first, higher classes before lower ones; prompts of several chunks share
what is left, or what the engine allows them beside decodes. So the first token comes after::

    (what is left of the step at work) + (wait for a place in batch and KV cache)
    + (steps for the tokens ahead and the own ones) * (time of a step without them)
    + (tokens computed in these steps, without the free ones) * (time of a token)

times ``correction`` plus ``overhead_s``, by which measured TTFTs have lately differed from this.
"""

from __future__ import annotations

from math import ceil

from engine.api import Priority
from router.ports.replica_load import ReplicaLoad

DEFAULT_OUTPUT_TOKENS = 256.0
"""Tokens that an answer is expected to have until one has ended."""

DEFAULT_STEP_TOKENS = 2_048
"""Most tokens of a step of a replica that does not report it. That of ``engine.config.EngineConfig``."""

INTERACTIVE = Priority.INTERACTIVE.value  # the look-up of an enumeration's member takes as long as the rest of a loop


def predict_ttft(
    load: ReplicaLoad, prompt_tokens: int, matched_tokens: int = 0, priority: Priority = Priority.STANDARD
) -> float:
    """Returns the predicted TTFT of a request on a replica with this ``load``, in seconds from now, finite and not
    negative.

    ``prompt_tokens`` include the ``matched_tokens``, which the replica is expected to have in its prefix cache. A
    replica that has not measured its steps, or whose release reports none, has ``wait_s``.
    """
    # This runs for each replica and request: comparisons in place of calls, and nothing that has no effect.
    tokens_s, fixed_s = load.prompt_token_s, load.step_s
    if not (tokens_s > 0 or fixed_s > 0):  # ``load.measured``
        return max(0.0, load.wait_s)
    own = prompt_tokens - matched_tokens if matched_tokens > 0 else prompt_tokens
    if own < 1:
        own = 1
    step_s = fixed_s + load.sequence_s * load.decoding  # without prompt tokens
    everything = sum(load.queued_short) + sum(load.queued_long)
    step_tokens = load.step_tokens or DEFAULT_STEP_TOKENS
    busy_s = step_s if load.running or everything else 0.0  # prompt tokens of the step at work are in the queue
    free_s = _free_s(load, step_s) if load.free_prompt_tokens else 0.0
    steps, tokens = _prefill(load, step_tokens, own, priority)
    own_s = tokens * tokens_s - steps * free_s
    prefill_s = steps * step_s + (own_s if own_s > 0.0 else 0.0)
    place_s = 0.0
    if load.running:
        rest_s = tokens_s * (everything if everything < step_tokens else step_tokens) - free_s
        full_s = busy_s + (rest_s if rest_s > 0.0 else 0.0)
        place_s = _place_s(load, prompt_tokens if prompt_tokens > 1 else 1, full_s)
    correction = load.correction
    return load.overhead_s + (correction if correction > 0.0 else 0.0) * (_left_s(load, busy_s) + place_s + prefill_s)


def _free_s(load: ReplicaLoad, step_s: float) -> float:
    """Returns the seconds of prompt tokens that each step does not take longer for: no more than ``step_s``, which it
    takes without prompt tokens, so that one more token never makes a prediction shorter."""
    free_s = load.free_prompt_tokens * load.prompt_token_s
    return free_s if free_s < step_s else step_s


def _left_s(load: ReplicaLoad, step_s: float) -> float:
    """Returns what is left of the step at work, which takes ``step_s`` without prompt tokens: half of it if nothing is
    known of its beginning, or if it should have ended."""
    return step_s - load.step_age_s if 0 <= load.step_age_s < step_s else step_s / 2


def work_off(load: ReplicaLoad, short: list[int], long: list[int], seconds: float) -> None:
    """Removes from the queues ``short`` and ``long``, which have tokens by class, the tokens that the replica computes
    in ``seconds``: short prompts first, higher classes before lower ones. Changes nothing if the replica has not
    measured its steps."""
    if not load.measured:
        return
    left_s = seconds
    room = max(1, (load.step_tokens or DEFAULT_STEP_TOKENS) - load.decoding)
    long_room = (load.long_beside_decodes if load.decoding else load.long_step_tokens) or room
    step_s = load.step_s + load.sequence_s * load.decoding
    free_s = _free_s(load, step_s)
    for queue, in_step in ((short, room), (long, max(1, min(room, long_room)))):
        token_s = (step_s + max(0.0, load.prompt_token_s * in_step - free_s)) / in_step
        for at, tokens in enumerate(queue):
            if not tokens:
                continue
            done = tokens if tokens * token_s <= left_s else int(left_s / token_s)
            queue[at] = tokens - done
            left_s -= done * token_s
            if queue[at]:
                return


def _prefill(load: ReplicaLoad, step_tokens: int, own: int, priority: Priority) -> tuple[int, int]:
    """Returns the steps until a prompt of ``own`` uncached tokens is computed, and the prompt tokens computed in
    them. This runs for each replica and request, so what has no effect is not computed."""
    decoding = load.decoding
    room = step_tokens - decoding
    if room < 1:
        room = 1
    chunk = load.prefill_chunk or room
    classes = priority - INTERACTIVE + 1
    queued_short, queued_long = load.queued_short, load.queued_long
    short = _ahead(queued_short, classes) if any(queued_short) else 0
    long = _ahead(queued_long, classes) if any(queued_long) else 0
    everything = short + long + own
    if not long and own <= chunk:
        return ceil(everything / room), everything
    # A long prompt has short ones, which are before it and decode by then, beside it.
    beside_decodes = decoding > 0 or (own > chunk and short > 0)
    long_room = (load.long_beside_decodes if beside_decodes else load.long_step_tokens) or room
    long_room = room if long_room > room else long_room if long_room > 1 else 1
    beside = long if long < long_room else long_room  # tokens of long prompts in each step, until these are done
    steps = ceil(everything / room)
    if room > beside:
        steps = min(steps, ceil((short + own) / (room - beside)))
    tokens = short + own + min(long, steps * beside)
    if own <= chunk:
        return steps, tokens
    # It shares what long prompts may have, and short ones pass it.
    before = _before(long, own, load)
    steps = max(steps, ceil((before + own) / long_room), ceil((short + before + own) / room), ceil(own / chunk))
    return steps, max(tokens, short + before + own)


def _before(long: int, own: int, load: ReplicaLoad) -> int:
    """Returns how many tokens of the ``long`` ones ahead are computed before a long prompt of ``own`` tokens is.

    Of those ahead, all but ``long_at_once - 1`` have to be done before it begins. The others have as many tokens in
    each step as it has, until they are done.
    """
    prompts = max(1, load.long_prompts)
    beside = min(prompts, max(1, load.long_at_once) - 1)
    together = long * beside // prompts
    return long - together + min(together, beside * own)


def _ahead(queued: tuple[int, ...], classes: int) -> int:
    """Returns the tokens of the first ``classes`` classes, which are the highest."""
    tokens = 0
    for each in queued[:classes]:  # a loop, as this runs for each replica and request
        if each > 0:
            tokens += each
    return tokens


def _place_s(load: ReplicaLoad, prompt: int, busy_s: float) -> float:
    """Returns the seconds until running sequences have left a place in the batch, and room in the KV cache for the
    prompt and those that wait. In the time of an answer, whose steps take ``busy_s``, as many leave as run. At least
    one runs."""
    running, capacity = load.running, load.kv_capacity_tokens
    output = load.output_tokens or DEFAULT_OUTPUT_TOKENS
    queue = load.waiting
    excess = running + queue + 1 - load.max_sequences if load.max_sequences else 0
    used = load.kv_used * capacity
    # Half of an answer, on average, is what a running sequence is still to grow by.
    waiting = max(0.0, load.kv_demand_tokens - used - running * output / 2) if queue else 0.0
    missing = waiting + prompt - (capacity - used) if capacity else 0.0
    if excess <= 0 and missing <= 0:
        return 0.0
    return output * busy_s * max(0.0, excess / running, missing / max(1.0, used))
