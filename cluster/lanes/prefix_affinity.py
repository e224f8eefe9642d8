"""``PrefixMemory``: the prompt prefixes lately sent to a replica, as hashes, to guess where KV blocks are cached.

The guess is made on text, before tokenisation, in pieces of fixed length chained from the start; it may be wrong (the
replica may have evicted the blocks), which costs one prefill and nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from engine.api import Conversation, GenerationRequest

PIECE_CHARS = 128  # about two KV blocks of 16 tokens of English
PIECE_TOKENS = 32
MAX_PIECES = 256  # 32k characters; a longer match changes no decision


def _pieces(request: GenerationRequest) -> Iterator[object]:
    prompt = request.prompt
    if isinstance(prompt, tuple):
        for start in range(0, min(len(prompt), MAX_PIECES * PIECE_TOKENS), PIECE_TOKENS):
            yield prompt[start : start + PIECE_TOKENS]
        return
    if isinstance(prompt, Conversation):
        prompt = "\x00".join(f"{message.role}\x01{message.content}" for message in prompt.messages)
    for start in range(0, min(len(prompt), MAX_PIECES * PIECE_CHARS), PIECE_CHARS):
        yield prompt[start : start + PIECE_CHARS]


def fingerprint(request: GenerationRequest) -> tuple[int, ...]:
    """Chained hashes of the prompt's pieces, first to last; different tenants' salts give different chains."""
    chain: list[int] = []
    parent = hash(request.cache_salt)
    for piece in _pieces(request):
        parent = hash((parent, piece))
        chain.append(parent)
    return tuple(chain)


class PrefixMemory:
    """The prefixes sent to one replica, least recently used forgotten first. ``capacity`` is in pieces."""

    def __init__(self, capacity: int = 65_536) -> None:
        self._capacity = capacity
        self._seen: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def matched(self, chain: Sequence[int]) -> float:
        """Part of ``chain`` already seen, counted from its start, 0 to 1."""
        if not chain:
            return 0.0
        known = 0
        for link in chain:
            if link not in self._seen:
                break
            known += 1
        return known / len(chain)

    def remember(self, chain: Sequence[int]) -> None:
        """Note that a prompt with ``chain`` was sent here."""
        for link in reversed(chain):  # the start of a prompt stays longest: it is what others share
            self._seen[link] = None
            self._seen.move_to_end(link)
        while len(self._seen) > self._capacity:
            self._seen.popitem(last=False)
