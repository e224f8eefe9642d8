"""Applies the request header Cache-Control (RFC 9111, section 5.2.1) to the controls of the answer cache. Pure."""

from __future__ import annotations

from dataclasses import replace

from router.inference_request import CacheControls


def controlled(controls: CacheControls, header: str | None) -> CacheControls:
    """Returns ``controls``, which the request body sets, restricted by ``header``, the value of Cache-Control; None:
    there is no such header.

    ``no-cache`` and ``max-age=0`` ask for a new answer, ``no-store`` asks not to store it, and ``max-age=60`` takes a
    stored answer of up to 60 seconds. Other directives and malformed numbers have no effect.
    """
    for directive in () if header is None else header.lower().split(","):
        name, _, value = (part.strip() for part in directive.partition("="))
        if name == "no-cache":
            controls = replace(controls, lookup=False)
        elif name == "no-store":
            controls = replace(controls, store=False)
        elif name == "max-age" and value.isascii() and value.isdigit():
            controls = replace(controls, max_age_s=_smaller(controls.max_age_s, float(value[:12])))
    return controls


def _smaller(one: float | None, other: float) -> float:
    return other if one is None else min(one, other)
