"""``PrefixMemory``: the prompt prefixes that were sent to a replica, by which the router estimates which prefixes the
replica has cached.

Prompts are compared as text, before tokenisation, in pieces of fixed length whose hashes are chained from the start.
The estimate may be wrong, for example if answers have taken the place of the blocks. The replica then prefills the
prompt again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from math import inf

from engine.api import Conversation, GenerationRequest

PIECE_CHARS = 128  # characters of a piece of text; in English, about two KV blocks of 16 tokens
PIECE_TOKENS = 32  # tokens of a piece of a prompt that is given as token ids
MAX_REMEMBERED = 65_536  # pieces of a replica: some two million tokens
MAX_PIECES = 1024  # pieces of a prompt that are compared: 128k characters


def _pieces(request: GenerationRequest) -> Iterator[object]:
    """Yields the first MAX_PIECES pieces of the prompt. Those of a conversation include the roles."""
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
    """Returns the chained hashes of the request's prompt, one per piece, first to last. Each depends on the cache salt
    and all pieces before it, so that two prompts share the hashes of their common prefix if their salts are equal."""
    chain: list[int] = []
    parent = hash(request.cache_salt)
    for piece in _pieces(request):
        parent = hash((parent, piece))
        chain.append(parent)
    return tuple(chain)


def compared_share(request: GenerationRequest) -> float:
    """Returns the fraction of the request's prompt that ``fingerprint`` looks at: less than 1 if it is very long."""
    prompt = request.prompt
    if isinstance(prompt, tuple):
        return min(1.0, MAX_PIECES * PIECE_TOKENS / max(1, len(prompt)))
    length = prompt.characters if isinstance(prompt, Conversation) else len(prompt)
    return min(1.0, MAX_PIECES * PIECE_CHARS / max(1, length))


class PrefixMemory:
    """The LRU set of the prefixes that were sent to one replica, of at most MAX_REMEMBERED pieces."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, float] = OrderedDict()  # tokens of each piece
        self._tokens = 0.0

    def __len__(self) -> int:
        return len(self._seen)

    def matched(self, chain: Sequence[int]) -> float:
        """Returns the fraction of ``chain``, counted from its start, that was sent to the replica before, 0 to 1.

        ``chain`` is a result of ``fingerprint``.
        """
        if not chain:
            return 0.0
        known = 0
        for link in chain:
            if link not in self._seen:
                break
            known += 1
        return known / len(chain)

    def remember(self, chain: Sequence[int], tokens: float = 0.0, kv_capacity_tokens: float = 0.0) -> None:
        """Records that a prompt of ``tokens`` tokens with the hashes ``chain`` was sent to the replica, whose KV cache
        holds ``kv_capacity_tokens`` tokens; 0: unknown. Forgets the pieces that were sent longest ago and that no
        longer fit there."""
        each = tokens / max(len(chain), 1)
        for link in reversed(chain):  # so that the start of a prompt, which others share, is evicted last
            self._tokens += each - self._seen.get(link, 0.0)
            self._seen[link] = each
            self._seen.move_to_end(link)
        most = kv_capacity_tokens or inf
        while len(self._seen) > MAX_REMEMBERED or (self._seen and self._tokens > most):
            self._tokens -= self._seen.popitem(last=False)[1]
