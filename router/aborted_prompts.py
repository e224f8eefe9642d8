"""``AbortedPrompts``: the prompts of one request that are no longer generated for, while its other prompts go on."""

from __future__ import annotations

from collections.abc import Callable


class AbortedPrompts:
    """The prompts of one request that were aborted. ``aborted`` has their indices; none is ever removed."""

    def __init__(self) -> None:
        self.aborted: set[int] = set()
        self._listeners: list[Callable[[int], None]] = []

    def listen(self, on_abort: Callable[[int], None]) -> None:
        """Registers ``on_abort``, which is called with the index of each prompt that is aborted from now on."""
        self._listeners.append(on_abort)

    def abort(self, prompt: int) -> None:
        """Aborts the prompt with this index. A second call has no effect."""
        if prompt not in self.aborted:
            self.aborted.add(prompt)
            for on_abort in self._listeners:
                on_abort(prompt)
