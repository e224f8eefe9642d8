"""``Finding``: what a check says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """The severity of a finding. With an ERROR the service does not start, or loses or leaks something."""

    OK = "ok"
    SKIPPED = "skipped"  # the check could not run; ``seen`` says why
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. ``seen`` describes what was found, without any secret. ``remedy`` says in one sentence
    what to do; "": nothing."""

    name: str
    severity: Severity
    seen: str
    remedy: str = ""


def ok(name: str, seen: str) -> Finding:
    return Finding(name, Severity.OK, seen)


def skipped(name: str, seen: str) -> Finding:
    return Finding(name, Severity.SKIPPED, seen)


def warning(name: str, seen: str, remedy: str) -> Finding:
    return Finding(name, Severity.WARNING, seen, remedy)


def error(name: str, seen: str, remedy: str) -> Finding:
    return Finding(name, Severity.ERROR, seen, remedy)
