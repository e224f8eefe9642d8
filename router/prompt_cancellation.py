"""``PromptStops``: ends the generation for single prompts of a request, while that for the others goes on."""

from __future__ import annotations

from collections.abc import Callable


class PromptStops:
    """The prompts whose answers will not be sent, by index. ``stopped`` only grows."""

    def __init__(self) -> None:
        self.stopped: set[int] = set()
        self._listeners: list[Callable[[int], None]] = []

    def listen(self, on_stop: Callable[[int], None]) -> None:
        """Has ``on_stop`` called with each prompt that is stopped from now on."""
        self._listeners.append(on_stop)

    def stop(self, prompt: int) -> None:
        """Stops a prompt, once."""
        if prompt not in self.stopped:
            self.stopped.add(prompt)
            for on_stop in self._listeners:
                on_stop(prompt)
