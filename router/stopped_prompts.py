"""``StoppedPrompts``: the prompts of one request whose generation is ended, while its other prompts go on."""

from __future__ import annotations

from collections.abc import Callable


class StoppedPrompts:
    """The prompts whose generation is stopped. ``stopped`` has their indices; none is ever removed."""

    def __init__(self) -> None:
        self.stopped: set[int] = set()
        self._listeners: list[Callable[[int], None]] = []

    def listen(self, on_stop: Callable[[int], None]) -> None:
        """Registers ``on_stop``, which is called with the index of each prompt that is stopped from now on."""
        self._listeners.append(on_stop)

    def stop(self, prompt: int) -> None:
        """Stops the prompt with this index. A second call has no effect."""
        if prompt not in self.stopped:
            self.stopped.add(prompt)
            for on_stop in self._listeners:
                on_stop(prompt)
