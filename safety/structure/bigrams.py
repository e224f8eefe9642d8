"""``english_share``: the share of a word's letter pairs that are common in English. Pure."""

from __future__ import annotations

_COMMON_PAIRS = """
th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi ri ro ic ne ea
ra ce li ch ll be ma si om ur ca el ta la ns di fo ho pe ec pr no ct us ac ot il tr ly nc et ut ss so rs un lo wa ge ie
wh ee wi em ad ol rt po we na ul ni ts mo ow pa im mi ai sh ir su id os iv ia am fi ci vi pl ig tu ev ld ry mp fe bl ab
"""
PAIRS = frozenset(_COMMON_PAIRS.split())


def english_share(word: str) -> float:
    """Returns the share, 0 to 1, of the letter pairs of a lower-case word that are among the 120 commonest of English;
    0 for a single letter."""
    if len(word) < 2:
        return 0.0
    return sum(word[index : index + 2] in PAIRS for index in range(len(word) - 1)) / (len(word) - 1)
