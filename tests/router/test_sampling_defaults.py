"""Sampling parameters that a request leaves open come from its profile, else from its tier."""

from __future__ import annotations

import json

import pytest

from router.config.profiles import PROFILES, ProfileConfig
from router.openai.chat import ChatEndpoint
from router.sampling_profiles import apply_profile, apply_tier_defaults

DEFAULTS = ProfileConfig(temperature=0.2, top_p=0.9).parameters


@pytest.mark.parametrize(
    ("fields", "temperature", "top_p"),
    [
        ({}, 0.2, 0.9),
        ({"temperature": 1}, 1.0, 0.9),
        ({"temperature": 0, "top_p": 0.5}, 0.0, 0.5),
        ({"profile": "creative"}, 1.0, 0.95),
        ({"profile": "creative", "temperature": 0.1}, 0.1, 0.95),
    ],
)
def test_what_is_left_open_comes_from_the_profile_else_from_the_tier(
    fields: dict[str, object], temperature: float, top_p: float
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    request = apply_profile(ChatEndpoint().parse(json.dumps(body).encode()), PROFILES)

    sampling = apply_tier_defaults(request, DEFAULTS).sampling

    assert (sampling.temperature, sampling.top_p) == (temperature, top_p)


def test_a_tier_without_defaults_changes_nothing() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    request = ChatEndpoint().parse(json.dumps(body).encode())

    assert apply_tier_defaults(request, {}) is request
    assert apply_tier_defaults(request, {}).sampling.temperature == 1.0


@pytest.mark.parametrize(
    ("fields", "temperature", "top_p"),
    [({"n": 2}, 1.0, 1.0), ({"n": 2, "temperature": 0}, 0.0, 1.0), ({"n": 2, "do_sample": True}, 0.2, 0.9)],
    ids=str,
)
def test_a_search_that_draws_nothing_is_not_refused_for_what_its_tier_draws_by(
    fields: dict[str, object], temperature: float, top_p: float
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "use_beam_search": True, **fields}
    request = ChatEndpoint().parse(json.dumps(body).encode())

    sampling = apply_tier_defaults(request, DEFAULTS | {"repetition_penalty": 1.2}).sampling

    assert (sampling.temperature, sampling.top_p, sampling.repetition_penalty) == (temperature, top_p, 1.2)
