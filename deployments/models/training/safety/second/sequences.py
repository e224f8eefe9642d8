"""Texts as sequences of the second model: a prefix, the tokens of a window of the text, and a token for its end."""

from __future__ import annotations

from typing import Final

from deployments.models.training.safety.example import Example
from safety.decoder.byte_pairs import BytePairs
from safety.decoder.gguf_file import GGUFFile

WINDOW: Final = 128  # tokens of a text
STRIDE: Final = 112
HARMLESS_WINDOWS: Final = 3
"""Windows of a harmless text, all of which are harmless. Any other text is trained on if it is one window, since
nothing says which of several has the harm."""
UNCERTAIN: Final = 0.3  # the probability of a label from which on a text is not taken for harmless


class Sequences:
    """Makes sequences with the tokenizer of ``file``: those of a user's turn in its chat template."""

    def __init__(self, file: GGUFFile) -> None:
        """Raises UnsupportedDecoderError for another tokenizer than SmolLM2's."""
        self._cut = BytePairs(file.metadata)
        control = self._cut.control
        self.prefix = [control["<|im_start|>"], *self._cut("user\n")]
        self.end = control["<|im_end|>"]

    def training_windows(self, example: Example) -> list[list[int]]:
        """Returns the windows of a text that are trained on, without prefix and end."""
        found = windows(self._cut(example.text))
        if all(value <= UNCERTAIN for value in example.known.values()):
            return found[:HARMLESS_WINDOWS]
        return found if len(found) == 1 else []


def windows(tokens: list[int]) -> list[list[int]]:
    """Returns the windows of a text, in order; those of an empty text are one."""
    starts = range(0, max(1, len(tokens) - WINDOW + STRIDE), STRIDE)
    return [tokens[start : start + WINDOW] for start in starts]
