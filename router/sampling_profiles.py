"""Sampling profiles: named presets of sampling parameters, which a request selects by its field ``profile``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from router.config import ProfileConfig
from router.errors import InvalidRequestError
from router.inference_request import InferenceRequest


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
    settings: dict[str, Any] = {
        name: value for name, value in profile.parameters.items() if name not in request.explicit
    }
    return replace(request, sampling=replace(request.sampling, **settings))
