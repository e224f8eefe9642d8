"""Profiles: sampling parameters for a use case. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from router.config import ProfileConfig
from router.errors import InvalidRequestError
from router.inference_request import InferenceRequest


def apply_profile(request: InferenceRequest, profiles: Mapping[str, ProfileConfig]) -> InferenceRequest:
    """``request`` with the parameters of the profile that it names, where the client set none itself.

    Raises InvalidRequestError for an unknown profile, RequestError for parameters that do not go together.
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
