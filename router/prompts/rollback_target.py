"""``previous_version``: the version that a rollback activates. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from router.ports.prompt_store import Activation, ActivationKind


def previous_version(history: Sequence[Activation]) -> int | None:
    """Returns the version that a rollback activates: the one that was active before the present one; None if there was
    none.

    ``history`` is oldest first. Rollbacks go further back each time: after the activations 1, 2, 3, two rollbacks lead
    to 1. A version that was activated twice in a row counts once.
    """
    stack: list[int] = []
    for each in history:
        if each.kind is ActivationKind.ROLLBACK and each.version in stack:
            while stack[-1] != each.version:
                stack.pop()
        elif not stack or stack[-1] != each.version:
            stack.append(each.version)
    return stack[-2] if len(stack) > 1 else None
