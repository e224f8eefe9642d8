"""Fills in sampling parameters that a request does not set itself: those of the profile that it names, or else those of
its tier.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from router.config.profiles import ProfileConfig
from router.errors import InvalidRequestError
from router.inference_request import InferenceRequest

DRAWN_BY = frozenset({"temperature", "top_k", "top_p", "min_p"})
"""The parameters of a tier that say how a token is drawn."""


def apply_profile(request: InferenceRequest, profiles: Mapping[str, ProfileConfig]) -> InferenceRequest:
    """Returns ``request`` with the parameters of the profile that it names, except those that the client set itself.

    A request that names no profile is returned unchanged. Raises InvalidRequestError for an unknown profile, and
    RequestError if the profile's parameters and the client's exclude each other.
    """
    if request.profile is None:
        return request
    profile = profiles.get(request.profile)
    if profile is None:
        known = ", ".join(profiles)
        raise InvalidRequestError(f"There is no such profile; there are {known}.", "unknown_profile", "profile")
    return _with(request, profile.parameters)


def apply_tier_defaults(request: InferenceRequest, parameters: Mapping[str, float]) -> InferenceRequest:
    """Returns ``request`` with the sampling ``parameters`` of its tier, except those that the client set itself.

    A request that names a profile is returned unchanged. A beam search that draws nothing gets none of the parameters
    by which tokens are drawn: it would be refused for them. Raises RequestError if the parameters and the client's
    exclude each other.
    """
    if not parameters or request.profile is not None:
        return request
    beam = request.sampling.beam
    if beam is not None and not beam.do_sample:
        parameters = {name: value for name, value in parameters.items() if name not in DRAWN_BY}
    return _with(request, parameters)


def _with(request: InferenceRequest, parameters: Mapping[str, float]) -> InferenceRequest:
    settings: dict[str, Any] = {name: value for name, value in parameters.items() if name not in request.explicit}
    return replace(request, sampling=replace(request.sampling, **settings))
