"""``relevance``: the relevance of texts to a question, by the words that they share. Pure.

The score is BM25 (Robertson and Zaragoza 2009), with the texts themselves as the collection from which the weights of
words come: a word of the question that is in few of the texts weighs most.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

K1, B = 1.2, 0.75
WORD = re.compile(r"[^\W_]+")
WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Characters of languages that put no spaces between words: pairs of them stand for words."""
MIN_STEM = 4

Relevance = Callable[[str, Sequence[str]], Sequence[float]]
"""Takes a question and texts, and returns how much each text has to do with it; 0: nothing."""


def relevance(question: str, texts: Sequence[str]) -> list[float]:
    """Returns the BM25 score of each text for ``question``."""
    asked = set(terms(question))
    counts = [Counter(term for term in terms(text) if term in asked) for text in texts]
    lengths = [len(WORD.findall(text)) for text in texts]
    mean = sum(lengths) / len(lengths) if lengths else 1.0
    within = Counter(term for count in counts for term in count)
    weights = {term: math.log(1 + (len(texts) - n + 0.5) / (n + 0.5)) for term, n in within.items()}
    return [
        sum(
            weights[term] * n * (K1 + 1) / (n + K1 * (1 - B + B * length / max(mean, 1.0))) for term, n in count.items()
        )
        for count, length in zip(counts, lengths, strict=True)
    ]


def terms(text: str) -> list[str]:
    """Returns the words of a text in lower case, without the ending of a plural. A word in a script without spaces
    gives its pairs of characters."""
    found: list[str] = []
    for word in WORD.findall(text.lower()):
        if WIDE.search(word):
            found += [word[at : at + 2] for at in range(max(1, len(word) - 1))]
        else:
            found.append(word[:-1] if len(word) > MIN_STEM and word.endswith("s") else word)
    return found
