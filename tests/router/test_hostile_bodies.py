"""A body within the size limit, made to be slow: its refusal must not hold up the streams of everybody else."""

from __future__ import annotations

import time

import pytest

from router.config import AutoConfig, RouterConfig
from router.errors import InvalidRequestError
from router.openai.chat import ChatEndpoint
from router.openai.completions import CompletionEndpoint
from router.tiers.choose import TierChoice, choose_tier

SIZE = RouterConfig.model_fields["max_body_bytes"].default - 200
LIMIT_S = 1.5  # all of these take 0.1 to 0.3 s, most of it in reading the JSON; unbounded, 6 to 9 s
ONES = "1," * (SIZE // 2 - 50) + "1"
NAMES = ",".join(f'"{i}":1' for i in range(300_000))


def user(content: str) -> str:
    return f'{{"model":"fast","messages":[{{"role":"user","content":{content}}}]}}'


@pytest.mark.parametrize(
    ("form", "body", "param"),
    [
        (ChatEndpoint(), f'{{"model":"fast","messages":[{ONES}]}}', "messages[0]"),
        (ChatEndpoint(), user(f"[{ONES}]"), "messages[0].content[0]"),
        (ChatEndpoint(), user(f'"x",{NAMES}'), "messages[0].0"),
        (ChatEndpoint(), f'{{{NAMES},"model":"fast","messages":[]}}', "0"),
        (ChatEndpoint(), user('"x"')[:-1] + f',"metadata":{{{NAMES}}}}}', "metadata"),
        (ChatEndpoint(), user('"x"')[:-1] + f',"stop":[{ONES}]}}', "stop[0]"),
        (ChatEndpoint(), user('"x"')[:-1] + f',"stop_token_ids":[{ONES}]}}', "stop_token_ids"),
        (CompletionEndpoint(), f'{{"model":"fast","prompt":["a",{ONES}]}}', "prompt[1]"),
        (CompletionEndpoint(), f'{{"model":"fast","prompt":[[1],{ONES}]}}', "prompt[1]"),
        (CompletionEndpoint(), f'{{"model":"fast","prompt":[1,"a",{ONES}]}}', "prompt[1]"),
    ],
    ids=["messages", "parts", "message", "names", "metadata", "stop", "stop-ids", "texts", "lists", "tokens"],
)
def test_a_refusal_is_quick(form: ChatEndpoint | CompletionEndpoint, body: str, param: str) -> None:
    raw = body.encode()
    started = time.process_time()
    with pytest.raises(InvalidRequestError) as refused:
        form.parse(raw)
    assert time.process_time() - started < LIMIT_S
    assert refused.value.field == param


def test_many_long_prompts_are_judged_in_the_time_of_one() -> None:
    started = time.process_time()
    choose_tier("auto", ["lorem ipsum 1 dolor " * 3000] * 64, None, TierChoice(("fast", "balanced"), AutoConfig()))
    assert time.process_time() - started < 0.2
