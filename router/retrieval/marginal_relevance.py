"""``diversified``: maximal marginal relevance, Carbonell and Goldstein (SIGIR 1998). Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def diversified(
    relevance: Sequence[float], similarity: Callable[[int, int], float], count: int, trade_off: float
) -> list[int]:
    """Returns the indices of ``count`` items that are relevant and dissimilar from each other, in the order in which
    they are chosen.

    Each choice has the highest of ``trade_off`` x relevance - (1 - ``trade_off``) x the similarity to the most similar
    item that was chosen before. ``relevance`` is between 0 and 1, best first; ``similarity`` takes two indices and
    returns a number between 0 and 1. ``trade_off`` 1: relevance alone.
    """
    if trade_off >= 1:
        return list(range(min(count, len(relevance))))
    left = list(range(len(relevance)))
    nearest = [0.0] * len(relevance)
    chosen: list[int] = []
    while left and len(chosen) < count:
        best = max(left, key=lambda place: trade_off * relevance[place] - (1 - trade_off) * nearest[place])
        left.remove(best)
        chosen.append(best)
        for place in left:
            nearest[place] = max(nearest[place], similarity(best, place))
    return chosen
